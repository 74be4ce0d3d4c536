"""What becomes of a frame."""

from __future__ import annotations

import enum


class Verdict(enum.IntEnum):
    """What a program returns (`enum xdp_action`)."""

    #: An error of the program: the frame is dropped, and the tracepoint xdp:xdp_exception tells.
    ABORTED = 0
    #: The frame is dropped, before Linux has done any work for it.
    DROP = 1
    #: The frame goes on to Linux as if there were no program.
    PASS = 2
    #: The frame leaves by the interface it came in by.
    TX = 3
    #: The frame goes elsewhere; `redirect` and the redirect maps return it.
    REDIRECT = 4

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


ABORTED = Verdict.ABORTED
DROP = Verdict.DROP
PASS = Verdict.PASS
TX = Verdict.TX
REDIRECT = Verdict.REDIRECT
