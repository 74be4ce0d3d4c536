"""Packet filters in tcpdump's language.

libpcap compiles an expression to classic BPF, when it is installed; what becomes of the program is
ours. The same program runs in the kernel as an XDP program or as a packet socket's filter, and in
this process, and decides the same everywhere: what the bytes on the wire say.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import functools
import threading
from typing import Any, Self

from millrace._native import packets as _native
from millrace.packets.filter_place import place_of_error

#: What the kernel tells of a packet beside its bytes is asked for at such places.
_ANCILLARY = 0xFFFFF000
_LOADS = (0x20, 0x28, 0x30)

_ETHERNET = 1
_LONGEST = 262144
_NO_NETMASK = 0xFFFFFFFF


class FilterError(ValueError):
    """An expression that is no packet filter: `reason`, and `position` in `expression` if known."""

    def __init__(self, expression: str, reason: str, position: int | None) -> None:
        self.expression = expression
        self.reason = reason
        self.position = position
        text = f"this is no packet filter: {reason}"
        if expression.strip():
            shown = "".join(" " if letter.isspace() else letter for letter in expression)
            text += f"\n  {shown}"
            if position is not None:
                text += f"\n  {' ' * position}^"
        super().__init__(text)


class Filter(_native.Filter):
    """A packet filter: `Filter("tcp port 80 and not host 192.0.2.1")`, as pcap-filter(7) has it.

    `matches` looks at one frame, `mask` at the packets of a batch; `millrace.open` takes one, too.
    Its text is that of `tcpdump -d`.

    Raises FilterError, a ValueError with a caret at the place, for what is no expression, and
    FileNotFoundError where libpcap is not installed.
    """

    def __new__(cls, expression: str) -> Self:
        return super().__new__(cls, expression, _compile(expression))

    @classmethod
    def from_instructions(
        cls, instructions: list[tuple[int, int, int, int]], expression: str = ""
    ) -> Self:
        """Make a filter without libpcap, of what `tcpdump -ddd` prints: (code, jt, jf, k) of each.

        Raises ValueError for what the kernel would refuse.
        """
        return super().__new__(cls, expression, instructions)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


class _Libpcap:
    """The part of libpcap that compiles. One thread at a time may use it."""

    def __init__(self, library: Any) -> None:
        self._lock = threading.Lock()
        self._library = library
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint,
        )
        library.pcap_geterr.argtypes = (ctypes.c_void_p,)
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        library.pcap_freecode.restype = None
        library.pcap_close.argtypes = (ctypes.c_void_p,)
        library.pcap_close.restype = None

    def compile(
        self, expression: str, *, optimize: bool = True
    ) -> list[tuple[int, int, int, int]] | str:
        """The instructions, or what libpcap says of the expression."""
        with self._lock:
            handle = self._library.pcap_open_dead(_ETHERNET, _LONGEST)
            if not handle:
                raise MemoryError("libpcap has no memory")
            try:
                program = _Program()
                text = expression.encode()
                if self._library.pcap_compile(handle, program, text, optimize, _NO_NETMASK):
                    said: bytes = self._library.pcap_geterr(handle)
                    return said.decode(errors="replace")
                found = program.instructions[: program.length]
                plain = [(one.code, one.jt, one.jf, one.k) for one in found]
                self._library.pcap_freecode(program)
                return plain
            finally:
                self._library.pcap_close(handle)


@functools.cache
def _libpcap() -> _Libpcap:
    for name in ("libpcap.so.1", "libpcap.so.0.8", ctypes.util.find_library("pcap")):
        if name is None:
            continue
        try:
            return _Libpcap(ctypes.CDLL(name))
        except OSError:
            continue
    raise FileNotFoundError(
        errno.ENOENT,
        "a packet filter takes libpcap, which is not installed; on Debian: "
        "apt-get install libpcap0.8 (Filter.from_instructions does without)",
    )


def _compile(expression: str) -> list[tuple[int, int, int, int]]:
    if "\0" in expression:
        raise FilterError(expression, "it contains a zero", expression.index("\0"))
    try:
        found = _libpcap().compile(expression)
    except UnicodeEncodeError as error:
        raise FilterError(expression, error.reason, error.start) from None
    if isinstance(found, str):
        reason = found.removeprefix("can't parse filter expression: ")
        reason = reason.removesuffix(" in filter expression")
        raise FilterError(expression, reason, place_of_error(expression, reason, _is_one))
    asked = _first(expression, ("inbound", "outbound", "ifindex"))
    if asked is not None and any(code in _LOADS and k >= _ANCILLARY for code, _, _, k in found):
        raise FilterError(
            expression,
            "inbound, outbound and ifindex ask for what is not in a packet; look at Batch.flags, "
            "where Flags.OUTGOING is",
            asked,
        )
    if any(code == 0x05 and k > 0x7FFFFFFF for code, _, _, k in found):
        raise FilterError(
            expression,
            "protochain takes a loop, which no program in the kernel may have; write what the "
            "packets look like, such as ip6[6] = 0 and ip6[40] = 6",
            _first(expression, ("protochain",)),
        )
    return found


def _is_one(expression: str) -> bool:
    """Whether libpcap takes an expression, if only to find that nothing passes it."""
    found = _libpcap().compile(expression, optimize=False)
    return not isinstance(found, str) or "rejects all packets" in found


def _first(expression: str, words: tuple[str, ...]) -> int | None:
    places = [place for word in words if (place := expression.find(word)) >= 0]
    return min(places, default=None)
