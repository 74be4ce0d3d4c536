# Editors show these docstrings, and not those of the compiled module.
# ruff: noqa: PYI021
"""Raw packets: ports and batches. Use `millrace`, which has the same names."""

import enum
from collections.abc import Iterable
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, final, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, disjoint_base

from millrace.packets.stats import (
    CaptureProgress,
    LoopStats,
    PortStats,
    ReplayProgress,
    SendProgress,
)

__all__ = [
    "HEADER_FIELDS",
    "HEADER_SIZE",
    "Batch",
    "Capture",
    "Filter",
    "Flags",
    "Forwarder",
    "Generator",
    "Meter",
    "Port",
    "Replay",
    "l2fwd",
    "rxdrop",
    "txpush",
]

#: What can be sent: a batch, one frame, frames, or the rows of an array of uint8.
_Frames: TypeAlias = Batch | Buffer | Iterable[Buffer]

#: The fields of a row of `Batch.headers`: name, NumPy's type, offset in bytes.
HEADER_FIELDS: Final[list[tuple[str, str, int]]]
#: Bytes of a row of `Batch.headers`.
HEADER_SIZE: Final[int]

class Flags(enum.IntFlag):
    """What is known of a packet besides its bytes."""

    #: Fewer bytes are here than were on the wire (`Batch.original_length`).
    CUT = 1
    #: This host sent it.
    OUTGOING = 2
    #: The timestamp is the network card's.
    HARDWARE_TIME = 4
    #: Hardware or the kernel found the transport checksum right.
    CHECKSUM_VERIFIED = 8
    #: The sender is on this machine and left the transport checksum unfinished: its field holds the
    #: pseudo-header's sum. Sending the batch finishes it.
    CHECKSUM_UNFINISHED = 16
    #: Several segments of TCP or UDP in one, which a wire has apart.
    SUPER_SEGMENT = 32
    #: The port cannot say: a field that holds exactly the pseudo-header's sum is unfinished.
    CHECKSUM_UNSURE = 64

@final
class Batch:
    """Packets that came together, as columns over one piece of memory.

    A batch, each part of it and each array or memoryview made from it keeps the bytes that it
    shows: they never change, whatever becomes of the port. `Batch(frames)` makes one of bytes-like
    objects, which are copied.
    """

    def __new__(cls, frames: _Frames, *, timestamp: int = 0) -> Self: ...
    @property
    def offset(self) -> npt.NDArray[np.int64]:
        """Where each packet starts in `buffer`."""

    @property
    def length(self) -> npt.NDArray[np.uint32]:
        """Bytes of each packet that are here."""

    @property
    def original_length(self) -> npt.NDArray[np.uint32]:
        """Bytes of each packet on the wire; more than `length` where it was cut."""

    @property
    def timestamp(self) -> npt.NDArray[np.int64]:
        """When each packet arrived, nanoseconds since 1970; `Port.timestamps` says whose clock."""

    @property
    def queue(self) -> npt.NDArray[np.uint16]:
        """The receive queue that each packet came from."""

    @property
    def flags(self) -> npt.NDArray[np.uint16]:
        """What else is known of each packet, bits of `Flags`."""

    @property
    def buffer(self) -> npt.NDArray[np.uint8]:
        """The memory that the offsets count in, read-only.

        Only the batch's own packets are to be looked at: what lies beside them belongs to others
        and changes at any time.
        """

    @property
    def copied(self) -> bool:
        """Whether the packets are a copy, and not where they came in.

        They are copied where fewer than a quarter of the port's frames are free, so that whoever
        keeps batches cannot stop the port, and where one of them does not fit a frame.
        """

    @property
    def nbytes(self) -> int:
        """Bytes of all packets together."""

    def headers(self) -> npt.NDArray[np.void]:
        """The headers of every packet as one structured array with the fields of `HEADER_FIELDS`.

        What a packet has not, is cut off or cannot be read is 0. All fields are numbers, so the
        table goes into pandas, polars and pyarrow as it is.
        """

    def tolist(self) -> list[bytes]:
        """The packets as bytes, copied."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> memoryview: ...
    @overload
    def __getitem__(self, key: slice | npt.NDArray[Any] | list[bool] | list[int], /) -> Batch:
        """A packet as a read-only memoryview; for a slice, a mask of truth values or an array of
        places a batch of those packets, which shares their bytes.
        """

@final
class Capture:
    """Packets of a port into files, into tables of headers, or into counts. Use
    `millrace.packets.Capture`.
    """

    def __new__(
        cls,
        port: str,
        *,
        path: str | PathLike[str] | None = None,
        descriptor: int | None = None,
        format: str = "pcapng",
        rows: int | None = None,
        filter: Filter | None = None,
        snap_length: int = 0,
        buffer_bytes: int | None = None,
        promiscuous: bool = True,
        incoming: bool = True,
        outgoing: bool = True,
        packets: int | None = None,
        seconds: float | None = None,
        rotate_bytes: int | None = None,
        rotate_seconds: float | None = None,
        keep: int | None = None,
        flows: int | None = None,
    ) -> Self: ...
    def run(self) -> Literal["packets", "time", "stopped", "exhausted"]:
        """Capture until it ends. It looks for no signals: call it in a thread of its own.

        Raises OSError; what was written before stays readable.
        """

    def stop(self) -> None:
        """End `run` in another thread."""

    def progress(self) -> CaptureProgress:
        """What it has done so far."""

    def top(self, count: int) -> tuple[npt.NDArray[np.void], list[int], list[int], int]:
        """The flows with the most bytes: the headers of a packet of each, their packets and bytes,
        and how many others were given up.
        """

    def rows(self, timeout: float) -> tuple[npt.NDArray[np.void] | None, bool]:
        """The next table of headers, or None if there is none in time; and whether there will be
        none.
        """

    @property
    def facts(self) -> dict[str, str]:
        """How packets are taken, by name."""

@disjoint_base
class Filter:
    """A packet filter that was compiled. Use `millrace.Filter`, which compiles it."""

    def __new__(cls, expression: str, instructions: list[tuple[int, int, int, int]]) -> Self: ...
    @property
    def expression(self) -> str:
        """The expression that it was compiled from."""

    @property
    def instructions(self) -> list[tuple[int, int, int, int]]:
        """The instructions of classic BPF: (code, jt, jf, k) of each."""

    def socket_instructions(self) -> list[tuple[int, int, int, int]]:
        """The instructions that a packet socket of the kernel gets, which sees VLAN tags elsewhere.

        Raises ValueError if they are too many.
        """

    def mask(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Which packets of a batch pass: `batch[filter.mask(batch)]` are those."""

    def matches(self, frame: Buffer, length: int | None = None) -> bool:
        """Whether a frame passes, of which `length` bytes were on the wire (None: as many as there
        are).
        """

@final
class Generator:
    """Renders and sends packets. Use `millrace.packets.generator`."""

    def __new__(
        cls,
        frame: bytes,
        sizes: tuple[Any, ...],
        fields: list[tuple[int, int, int, tuple[Any, ...]]],
        *,
        lengths: bool = True,
        checksums: bool = True,
        stamp: int | None = None,
        packets: int | None = None,
        seconds: float | None = None,
        packets_per_s: float | None = None,
        bits_per_s: float | None = None,
        burst: int = 1,
        batch: int = 64,
    ) -> Self: ...
    @property
    def period(self) -> int | None:
        """After how many packets the same come again; None: never."""

    def render(self, count: int) -> list[bytes]:
        """The next packets, which are not sent then."""

    def step(self, port: Port, seconds: float) -> bool:
        """Send for a while, or to the end; whether that was reached."""

    def finish(self, port: Port) -> None:
        """Give up what was rendered and not taken. Call it at the end, whatever that was."""

    def sent(self) -> SendProgress:
        """What was sent so far."""

@final
class Meter:
    """Reads the stamps of generated packets. Use `millrace.packets.generator`."""

    def __new__(
        cls,
        *,
        packets: int | None = None,
        seconds: float | None = None,
        idle: float | None = None,
    ) -> Self: ...
    def step(
        self,
        port: Port,
        seconds: float,
        wait: Literal["sleep", "spin"] | float | None = None,
    ) -> bool:
        """Receive for a while, or to the end; whether that was reached."""

    def counts(self) -> tuple[int, int, int]:
        """Stamped packets; those of streams that are not told apart; packets without a stamp."""

    def streams(self) -> list[dict[str, Any]]:
        """What became of each stream."""

@final
class Replay:
    """Sends a capture file. Use `millrace.packets.Replay`."""

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        speed: float | None = None,
        longest_gap: float = 60.0,
        packets_per_s: float | None = None,
        bits_per_s: float | None = None,
        times: int = 1,
        packets: int | None = None,
        seconds: float | None = None,
        filter: Filter | None = None,
        batch: int = 64,
    ) -> Self: ...
    def step(self, port: Port, seconds: float) -> bool:
        """Send for a while, or to the end; whether that was reached."""

    def finish(self, port: Port) -> None:
        """Give up what was read and not taken. Call it at the end, whatever that was."""

    def done(self) -> ReplayProgress:
        """What was sent so far."""

@final
class Port:
    """Raw packets of an interface, a wire in memory or a capture file. Use `millrace.open`.

    Any thread may use it; while one waits for packets, others may send.
    """

    def __new__(
        cls,
        name: str,
        *,
        latency: bool = False,
        batch: int | None = None,
        linger: float | None = None,
        wait: Literal["sleep", "spin"] | float | None = None,
        **options: Any,
    ) -> Self: ...
    def receive(self, timeout: float | None = None) -> Batch | None:
        """Wait for packets, for at most `timeout` seconds (None: for ever, 0: not at all).

        Returns an empty batch when the time is over, and None when nothing will ever come: at a
        file's end, or when the port was closed meanwhile. Raises OSError when the interface is down
        (ENETDOWN; it may come back) or gone (ENOTCONN), after what came before.
        """

    def __iter__(self) -> Self: ...
    def __next__(self) -> Batch: ...
    def send(self, frames: _Frames, timeout: float = 0.0) -> int:
        """Send a batch, or frames; returns how many were taken, from the first on.

        Fewer than all were taken where there is no room for more within `timeout` seconds: send the
        rest later. A batch of this port, or of one that shares its frames, leaves without a copy.
        What was taken and lost is counted (`stats()["drops"]`).

        Raises OSError (EMSGSIZE) and sends nothing if a frame is longer than the link takes,
        ValueError if one is shorter than an Ethernet header; OSError when the interface is down or
        gone.
        """

    def keep(self, frames: _Frames) -> Batch:
        """Copy frames into the port's own memory, to be sent from there as often as one likes
        without another copy.

        Raises OSError (ENOBUFS) if there are too few free frames.
        """

    def stats(self) -> PortStats:
        """What the port has counted since it was opened."""

    @property
    def facts(self) -> dict[str, str]:
        """How it works, by name: the mode, what was chosen and why."""

    @property
    def timestamps(self) -> Literal["hardware", "software", "file"]:
        """Whose clock the timestamps are of: the network card's (packets that are
        `Flags.HARDWARE_TIME`), this machine's, or that of who wrote the file.
        """

    @property
    def kind(self) -> str:
        """One of `PORT_KINDS`."""

    @property
    def name(self) -> str:
        """The interface, the wire or the file."""

    @property
    def mac(self) -> str | None:
        """The hardware address of this end, if it has one."""

    @property
    def mtu(self) -> int:
        """Bytes of the largest IP packet."""

    @property
    def batch(self) -> int:
        """Most packets of a batch."""

    @property
    def frames(self) -> tuple[int, int]:
        """Frames that nobody uses, and all frames."""

    def fileno(self) -> int:
        """The descriptor that is readable when packets wait."""

    def close(self) -> None:
        """Leave the wire. Batches that were given out stay as they are.

        Raises OSError if a file that was written could not be ended.
        """

    @property
    def closed(self) -> bool:
        """Whether close() was called."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

def rxdrop(
    port: Port,
    *,
    packets: int | None = None,
    seconds: float | None = None,
    batch: int = 64,
    wait: Literal["sleep", "spin"] | float | None = None,
    linger: float = 0.0,
) -> LoopStats:
    """Receive and drop, in bursts of up to `batch`, until so many `packets` or `seconds` are over.

    A native loop, as are the two below: it runs without the interpreter, spins unless `wait` says
    otherwise, and ends with Ctrl-C, when the port is closed, and where a file or a wire ends. With
    `linger` (seconds) it waits so long after a burst that was not full. The port's filter applies.

    Raises OSError as `Port.receive`.
    """

def txpush(
    port: Port,
    frames: Batch,
    *,
    packets: int | None = None,
    seconds: float | None = None,
    batch: int = 64,
) -> LoopStats:
    """Transmit frames of `port.keep` over and over, in bursts of up to `batch`.

    A frame that is under way is not sent again before it has left: on AF_XDP keep some thousand.
    Raises OSError as `Port.send`.
    """

def l2fwd(
    first: Port,
    second: Port,
    *,
    packets: int | None = None,
    seconds: float | None = None,
    batch: int = 64,
    wait: Literal["sleep", "spin"] | float | None = None,
    linger: float = 0.0,
    both_ways: bool = False,
    swap: bool = False,
) -> LoopStats:
    """Forward from one port to another that was opened with `arena=first`, without a copy.

    `both_ways`: also from the second to the first. `swap`: exchange the hardware addresses. What
    the other port has no room for waits. A checksum that a sender on this machine left unfinished
    is finished. `first`'s filter says what is forwarded; the rest is dropped.

    Raises ValueError for ports that do not share their frames, OSError as `Port.receive`.
    """

@final
class Forwarder:
    """Forwards between two ports that share their frames. Use `millrace.packets.forward`.

    `forth` and `back` say by name what goes wrong, as `millrace._native.Forwarder` takes it;
    without `back` nothing is taken from the second port.
    """

    def __new__(
        cls,
        first: Port,
        second: Port,
        forth: dict[str, Any],
        back: dict[str, Any] | None,
        *,
        filter: Filter | None = None,
        swap: bool = False,
        seed: int = 0,
    ) -> Self: ...
    def run(
        self,
        *,
        packets: int | None = None,
        seconds: float | None = None,
        batch: int = 64,
        wait: Literal["sleep", "spin"] | float | None = None,
        linger: float = 0.0,
    ) -> LoopStats:
        """Forward until so many `packets` were sent or `seconds` are over.

        What is on its way waits for the next call. Raises OSError when a port fails.
        """

    def counters(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """What was done with the packets of each direction."""

    def end(self) -> None:
        """Drop what is on its way; the counters say how much it was."""
