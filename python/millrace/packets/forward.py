"""A host in the middle: what comes in at one port leaves by another, and what goes wrong between.

The loop is native. It runs in slices, so that whoever asked for it can look at totals, and end it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

from millrace._native.packets import Forwarder, Port
from millrace.packets.filter import Filter
from millrace.packets.open import open as open_port
from millrace.packets.stats import PortStats

if TYPE_CHECKING:
    import threading

    from millrace.lab.impairment import Impairment, Wishes

#: How long the native loop runs before it looks whether it is to end.
_SLICE = 0.1
_LEAST_FRAMES, _MOST_FRAMES = 16_384, 262_144
#: Frames for bursts, and for packets that are smaller than the MTU.
_SPARE_FRAMES = 8_192
_USUAL_MTU = 1500
_MOST_PACKETS = (1 << 64) - 1
#: A program that lets nothing through: `ret #0`.
_NOTHING = [(0x06, 0, 0, 0)]


@dataclass(frozen=True)
class Direction:
    """What became of the packets of one direction."""

    source: str
    destination: str
    #: Packets that came, and their bytes.
    received: int
    received_bytes: int
    #: Packets that left, copies made on purpose among them, and their bytes.
    forwarded: int
    forwarded_bytes: int
    #: Packets that the filter let not through; on AF_XDP Linux has them, and they did not come.
    filtered: int
    left_to_linux: int
    #: What the link did: lost, and dropped by its queue.
    lost: int
    queue_dropped: int
    #: Overtaken on purpose, sent twice, with a flipped bit, marked with Congestion Experienced.
    reordered: int
    duplicated: int
    corrupted: int
    marked: int
    #: Packets that left more than a millisecond after their time, and the most that one was late
    #: in seconds.
    late: int
    latest: float
    #: Packets that are on their way, or were when it ended.
    in_flight: int
    #: Packets that were lost otherwise, by the place and the reason. Those of `rx_...` never came.
    drops: Mapping[str, int]

    @property
    def dropped(self) -> int:
        """All packets that were lost and not on purpose."""
        return sum(self.drops.values())


@dataclass(frozen=True)
class Totals:
    """What a forwarder has done."""

    seconds: float
    #: From the first port to the second, and back unless it was one way.
    directions: tuple[Direction, ...]
    #: Whether each packet left in the frame in which it came, without a copy in this program.
    zero_copy: bool
    #: How packets pass, in words.
    how: str
    #: Whether nothing would ever come any more: a file or a wire has ended.
    ended: bool

    @property
    def forwarded(self) -> int:
        """Packets that left, of both directions."""
        return sum(direction.forwarded for direction in self.directions)


class ForwardError(OSError):
    """A port failed while it was in use. `totals` is what had been done until then."""

    def __init__(self, number: int, text: str, totals: Totals) -> None:
        super().__init__(number, text)
        self.totals = totals


def forward(
    a: str | Port,
    b: str | Port,
    *,
    filter: str | Filter | None = None,
    one_way: bool = False,
    swap: bool = False,
    count: int | None = None,
    duration: float | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[Totals], None] | None = None,
    interval: float = 1.0,
    batch: int = 64,
    wait: Literal["sleep", "spin"] | float = "sleep",
    linger: float = 0.0,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    **wishes: Unpack[Wishes],
) -> Totals:
    """Forward between two ports, until `count` packets left, `duration` seconds passed, or `stop`.

    `a` and `b` are names, as `millrace.open` takes them, or ports, the second of which was opened
    with `arena=` the first. Names become ports that share their frames, so on AF_XDP a packet
    leaves in the frame in which it came. `options` are more options of `millrace.open` for both.

    `filter` says what is forwarded, both ways. `one_way`: only from `a` to `b`, and nothing is
    taken from `b`. `swap`: exchange the hardware addresses. `batch`, `wait` and `linger` are those
    of `l2fwd`.

    The others say what goes wrong on the way, as for `millrace.lab.Lab.wire`, for both directions
    or as (there, back): `loss`, `duplicate`, `corrupt`, `reorder` ("1%"), `burst`, `delay`,
    `jitter`, `reorder_delay` ("10ms"), `rate` ("100M"), `queue`, `mark` ("64KiB", "50packets",
    "1bdp"). `seed` is where their dice start. A super-segment is one packet; one that meets damage
    is lost.

    `progress` is called every `interval` seconds with what has been done so far.

    Raises ForwardError (an OSError with `totals`) when a port fails while it is in use: its
    interface is down (ENETDOWN) or gone (ENOTCONN). Before that, what `millrace.open` raises, and
    ValueError for what makes no sense.
    """
    whole = hasattr(count, "__index__") and not isinstance(count, bool)
    if count is not None and not (whole and 0 <= count <= _MOST_PACKETS):
        raise ValueError(f"count is a number of packets from 0 to {_MOST_PACKETS}, not {count!r}")
    if duration is not None and not duration >= 0:
        raise ValueError(f"duration is a number of seconds from 0 on, not {duration}")
    if isinstance(filter, str):
        filter = Filter(filter)
    with contextlib.ExitStack() as stack:
        if isinstance(a, Port) and isinstance(b, Port):
            if options:
                raise ValueError("options are for ports that are opened here; these are open")
            first, second, own = a, b, filter
        elif isinstance(a, Port) or isinstance(b, Port):
            raise ValueError("give two names or two ports; both must share their frames")
        else:
            first, second = _open(stack, a, b, filter, one_way, dict(options or {}), wishes)
            own = None
        mtu = min(first.mtu, second.mtu)
        forth, back = _read(wishes, mtu)
        forwarder = Forwarder(
            first,
            second,
            forth.native(),
            None if one_way else back.native(),
            filter=own,
            swap=swap,
            seed=seed,
        )
        return _run(
            _Account(forwarder, first, second),
            count,
            duration,
            stop,
            progress,
            interval,
            {"batch": batch, "wait": wait, "linger": linger},
        )


def _run(
    account: _Account,
    count: int | None,
    duration: float | None,
    stop: threading.Event | None,
    progress: Callable[[Totals], None] | None,
    interval: float,
    manner: dict[str, Any],
) -> Totals:
    begun = time.monotonic()
    end = None if duration is None else begun + duration
    shown = begun
    try:
        while not (stop is not None and stop.is_set()):
            now = time.monotonic()
            if end is not None and now >= end:
                break
            left = None if count is None else count - account.sent
            if left == 0:
                break
            seconds = _SLICE if end is None else min(_SLICE, end - now)
            done = account.forwarder.run(packets=left, seconds=seconds, **manner)
            account.add(done["packets"], done["seconds"], done["ended"])
            if done["ended"]:
                break
            if progress is not None and time.monotonic() - shown >= interval:
                shown = time.monotonic()
                progress(account.totals(shown - begun))
    except OSError as error:
        account.forwarder.end()
        text = error.strerror or str(error)
        totals = account.totals(time.monotonic() - begun)
        raise ForwardError(error.errno or 0, text, totals) from error
    account.forwarder.end()
    return account.totals(time.monotonic() - begun)


def _open(
    stack: contextlib.ExitStack,
    a: str,
    b: str,
    filter: Filter | None,
    one_way: bool,
    options: dict[str, Any],
    wishes: Wishes,
) -> tuple[Port, Port]:
    if "frames" not in options:
        impaired = _read(wishes, _USUAL_MTU)
        frames = 2 * sum(one.packets_on_the_way(_USUAL_MTU) for one in impaired) + _SPARE_FRAMES
        options["frames"] = min(max(frames, _LEAST_FRAMES), _MOST_FRAMES)
    # Where the whole frame is wanted, the kernel's own filters see it first and cost least.
    first = stack.enter_context(open_port(a, filter=filter, **options))
    # What nobody takes is to stay with Linux.
    wanted = Filter.from_instructions(_NOTHING, "nothing") if one_way else filter
    second = stack.enter_context(open_port(b, filter=wanted, arena=first, **options))
    return first, second


def _read(wishes: Wishes, mtu: int) -> tuple[Impairment, Impairment]:
    # Not above: it would make every import of millrace.packets one of the lab.
    from millrace.lab import LabError, impairment

    try:
        return impairment.read(wishes, mtu)
    except LabError as error:
        raise ValueError(str(error)) from None


class _Account:
    """What two ports and the forwarder between them count, from now on."""

    def __init__(self, forwarder: Forwarder, first: Port, second: Port) -> None:
        self.forwarder = forwarder
        self.sent = 0
        self._ports = (first, second)
        self._before = (first.stats(), second.stats())
        self._ended = False

    def add(self, packets: int, seconds: float, ended: bool) -> None:
        self.sent += packets
        self._ended = ended

    def totals(self, seconds: float) -> Totals:
        now = tuple(port.stats() for port in self._ports)
        forth, back = self.forwarder.counters()
        directions = [
            self._direction(counters, now, source)
            for source, counters in ((0, forth), (1, back))
            if counters is not None
        ]
        zero_copy, how = self._how(now)
        return Totals(seconds, tuple(directions), zero_copy, how, self._ended)

    def _direction(
        self, counters: dict[str, Any], now: tuple[PortStats, ...], source: int
    ) -> Direction:
        destination = 1 - source
        came = dict(self._more(now, source, "drops", "rx_"))
        lost = dict(self._more(now, destination, "drops", "tx_"))
        names = [f"{port.kind}:{port.name}" for port in self._ports]
        drops = {f"{names[source]} {name}": more for name, more in came.items()}
        drops |= {f"{names[destination]} {name}": more for name, more in lost.items()}
        own = {
            f"{names[destination]} takes nothing": counters["refused"],
            "no frame for a copy": counters["no_frame"],
            "damaged super-segment": counters["damaged_whole"] + counters["lost_copies"],
        }
        drops |= {name: more for name, more in own.items() if more}
        passed = dict(self._more(now, source, "details", "xdp_passed"))
        return Direction(
            source=names[source],
            destination=names[destination],
            received=counters["received"],
            received_bytes=counters["received_bytes"],
            # What the port took and then lost is among its drops.
            forwarded=counters["sent"] - sum(lost.values()),
            forwarded_bytes=counters["sent_bytes"],
            filtered=counters["filtered"],
            left_to_linux=passed.get("xdp_passed", 0),
            lost=counters["lost"],
            queue_dropped=counters["queue_dropped"],
            reordered=counters["reordered"],
            duplicated=counters["duplicated"],
            corrupted=counters["corrupted"],
            marked=counters["marked"],
            late=counters["late"],
            latest=counters["latest"],
            in_flight=counters["in_flight"],
            drops=drops,
        )

    def _more(
        self, now: tuple[PortStats, ...], port: int, table: Literal["drops", "details"], begins: str
    ) -> Iterator[tuple[str, int]]:
        """The counters that have grown."""
        for name, value in now[port][table].items():
            more = value - self._before[port][table].get(name, 0)
            if more > 0 and name.startswith(begins):
                yield name, more

    def _how(self, now: tuple[PortStats, ...]) -> tuple[bool, str]:
        kinds = {port.kind for port in self._ports}
        if kinds != {"af_xdp"}:
            copying = sorted(kinds - {"af_xdp"})
            return False, f"copied, as {' and '.join(copying)} ports do; they share one arena"
        copied = sum(
            more for port in (0, 1) for _, more in self._more(now, port, "details", "tx_c")
        )
        drivers = {port.facts["zero-copy"] for port in self._ports}
        own = "zero-copy: each packet leaves in the frame in which it came"
        if copied:
            own += f", but for {copied} in several frames"
        below = (
            "the NICs as well"
            if drivers == {"yes"}
            else "the kernel copies below: "
            + "; ".join(f"{port.name}: {port.facts['zero-copy']}" for port in self._ports)
        )
        return not copied, f"{own}; {below}"
