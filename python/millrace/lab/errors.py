"""What can go wrong in a lab, as exceptions with sentences for people."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


class LabError(RuntimeError):
    """A lab, a host or a wire could not be made or used. The message says what to do."""


class CommandFailed(LabError):
    """A program that ran on a host ended with a status other than zero, or took too long.

    `status` is its exit status (negative: minus the number of the signal that ended it; None: it
    was stopped at its time limit), `stdout` and `stderr` are what it had written until then.
    """

    def __init__(
        self, host: str, args: Sequence[str], status: int | None, stdout: str, stderr: str
    ) -> None:
        self.host = host
        self.command = list(args)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        if status is None:
            end = "did not end within its time limit"
        elif status < 0:
            end = f"was ended by signal {-status}"
        else:
            end = f"ended with status {status}"
        said = stderr.strip() or stdout.strip() or "it wrote nothing"
        super().__init__(f"{shlex.join(self.command)} on host {host} {end}: {said}")
