"""Netlink messages and generic netlink, as far as pyroute2 does not have them.

Requests and answers of the ethtool, netdev and sock_diag families. Sources: the kernel's
Documentation/userspace-api/netlink/intro.rst, linux/netlink.h and linux/genetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_GENERIC = 16

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
_NLM_F_ACK_TLVS = 0x200

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSGERR_ATTR_MSG = 1

_GENL_ID_CTRL = 16
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

#: The kernel answers at once; this only ends a hang.
TIMEOUT_SECONDS = 10.0
_RECEIVE_BYTES = 1 << 17
_ATTEMPTS = 3

Attributes = Mapping[int, bytes]


def attribute(kind: int, value: bytes | int | str | Iterable[bytes]) -> bytes:
    """One attribute: an int is a u32, a str ends with a zero byte, several bytes are a nest."""
    if isinstance(value, int):
        data = struct.pack("=I", value)
    elif isinstance(value, str):
        data = value.encode() + b"\0"
    elif isinstance(value, bytes):
        data = value
    else:
        data, kind = b"".join(value), kind | _NLA_F_NESTED
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of every attribute; what is cut or too short ends the list."""
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > end:
            return
        yield kind & _NLA_TYPE_MASK, data[at + 4 : at + length]
        at += length + 3 & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes by type; of several with one type the last."""
    return dict(each_attribute(data))


def unsigned(value: bytes) -> int:
    """A number of whatever width the kernel chose for it."""
    return int.from_bytes(value, "little" if _LITTLE else "big")


def text(value: bytes) -> str:
    """A string without the zero byte at its end."""
    return value.split(b"\0", 1)[0].decode(errors="replace")


_LITTLE = struct.pack("=H", 1) == b"\1\0"


class Netlink:
    """One netlink socket of the calling thread's network namespace."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(TIMEOUT_SECONDS)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, kind: int, payload: bytes) -> list[bytes]:
        """Send one request; give what the kernel answers before it acknowledges.

        Raises `OSError` with the kernel's error, and its own words where it gives any.
        """
        return list(self._exchange(kind, NLM_F_REQUEST | NLM_F_ACK, payload))

    def dump(self, kind: int, payload: bytes) -> Iterator[bytes]:
        """All the kernel has of something, one answer after the other.

        Whoever stops early leaves answers in the socket, which the next request throws away.
        """
        return self._exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)

    def dump_whole(self, kind: int, payload: bytes) -> list[bytes]:
        """As `dump`, again if the kernel says that something changed meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                return list(self.dump(kind, payload))
            except InterruptedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _exchange(self, kind: int, flags: int, payload: bytes) -> Iterator[bytes]:
        self._sequence += 1
        sequence = self._sequence
        head = _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0)
        self._socket.send(head + payload)
        interrupted = False
        while True:
            data = self._receive()
            at = 0
            while at + _HEADER.size <= len(data):
                length, got, got_flags, number, _ = _HEADER.unpack_from(data, at)
                if length < _HEADER.size or at + length > len(data):
                    raise OSError(errno.EBADMSG, "the kernel's netlink message is cut")
                body = data[at + _HEADER.size : at + length]
                at += length + 3 & ~3
                if number != sequence:
                    continue
                interrupted |= bool(got_flags & NLM_F_DUMP_INTR)
                if got in (_NLMSG_ERROR, _NLMSG_DONE):
                    _check(got, got_flags, body)
                    if interrupted:
                        raise InterruptedError(errno.EINTR, "it changed while it was read")
                    return
                yield body

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise TimeoutError(
                errno.ETIMEDOUT, f"the kernel did not answer within {TIMEOUT_SECONDS:g} s"
            ) from None


def _check(kind: int, flags: int, body: bytes) -> None:
    if len(body) < 4:
        return
    (code,) = struct.unpack_from("=i", body)
    if code >= 0:
        return
    said = ""
    if flags & _NLM_F_ACK_TLVS:
        # After an error follows the header of the request (or all of it), after a dump's end not.
        skip = 4
        if kind == _NLMSG_ERROR and len(body) >= 4 + _HEADER.size:
            length = _HEADER.unpack_from(body, 4)[0]
            capped = flags & 0x100  # NLM_F_CAPPED
            skip += _HEADER.size if capped else length + 3 & ~3
        said = text(attributes(body[skip:]).get(_NLMSGERR_ATTR_MSG, b""))
    reason = os.strerror(-code)
    raise OSError(-code, f"{reason} ({said})" if said else reason)


class GenericNetlink(Netlink):
    """Commands of generic-netlink families, which are found by their names."""

    def __init__(self) -> None:
        super().__init__(NETLINK_GENERIC)
        self._families: dict[str, int] = {}

    def family(self, name: str) -> int:
        """The number of a family; `OSError` with ENOENT if this kernel does not have it."""
        if name not in self._families:
            request = struct.pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0)
            request += attribute(_CTRL_ATTR_FAMILY_NAME, name)
            try:
                (answer,) = self.ask(_GENL_ID_CTRL, request)
            except FileNotFoundError:
                raise FileNotFoundError(
                    errno.ENOENT, f"this kernel has no {name} family of generic netlink"
                ) from None
            number = attributes(answer[4:]).get(_CTRL_ATTR_FAMILY_ID, b"")
            self._families[name] = unsigned(number)
        return self._families[name]

    def command(self, family: str, command: int, *request: bytes) -> list[bytes]:
        """The attributes in each answer to a command."""
        payload = struct.pack("=BBH", command, 1, 0) + b"".join(request)
        return [answer[4:] for answer in self.ask(self.family(family), payload)]

    def all(self, family: str, command: int, *request: bytes) -> list[bytes]:
        """The attributes in each answer to a command that dumps."""
        payload = struct.pack("=BBH", command, 1, 0) + b"".join(request)
        return [answer[4:] for answer in self.dump_whole(self.family(family), payload)]
