"""What cannot be read: a value that says why it is not there, and what would make it readable."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NotAvailable:
    """Stands where a value would be. It is false, so `reading or ()` reads well."""

    why: str
    #: What would make it readable, such as "root"; "" where nothing would.
    needs: str = ""

    def __bool__(self) -> Literal[False]:
        return False

    def __str__(self) -> str:
        return f"not available: {self.why}"


Reading: TypeAlias = T | NotAvailable


class Unavailable(Exception):
    """Raised by `known` for a value that is not there."""

    def __init__(self, reading: NotAvailable) -> None:
        self.reading = reading
        super().__init__(reading.why)


def known(reading: Reading[T]) -> T:
    """The value, or `Unavailable` with the reason why there is none."""
    if isinstance(reading, NotAvailable):
        raise Unavailable(reading)
    return reading


def because(error: OSError, what: str) -> NotAvailable:
    """The reason in an error of the kernel's, for what was asked of it."""
    number = error.errno or 0
    if number in (errno.EACCES, errno.EPERM):
        # Root may be refused as well, by a namespace or a security module.
        needs = "root" if os.geteuid() != 0 else "more privilege than root has here"
        return NotAvailable(f"{what}: permission denied", needs)
    if number in (errno.EOPNOTSUPP, errno.ENOTSUP):
        return NotAvailable(f"{what}: the driver or this kernel does not have it")
    return NotAvailable(f"{what}: {error.strerror or error}")
