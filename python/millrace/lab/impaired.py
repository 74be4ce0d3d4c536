"""A wire with a middle: two veth pairs, and our forwarder on the hidden host between them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Unpack

from millrace.lab import impairment as impairments
from millrace.lab import leftovers
from millrace.lab.addresses import Pool
from millrace.lab.errors import LabError
from millrace.lab.host import Host
from millrace.lab.impairment import Impairment, Wishes
from millrace.lab.wire import MIN_MTU, Interface, Wire, join

#: What an end must leave undone for packets to reach the middle as they would be on a cable:
#: cut to the MTU, each with its checksum, and not put together again.
CABLE_OFFLOADS: Mapping[str, bool] = {
    "tx": False,
    "tso": False,
    "gso": False,
    "gro": False,
    "tx-udp-segmentation": False,
}

MAX_MTU = 16_000
_INTERFACES = ("left", "right")
_START_SECONDS = 20.0
_ANSWER_SECONDS = 5.0
_LEAST_FRAMES, _MOST_FRAMES = 16_384, 262_144
#: Frames for bursts, and for packets that are smaller than the MTU.
_SPARE_FRAMES = 8_192


@dataclass(frozen=True)
class Statistics:
    """What the wire did to the packets of one direction since it was made."""

    #: Packets that were put on the wire. Each was lost, dropped by the queue, or forwarded.
    offered: int
    lost: int
    queue_dropped: int
    forwarded: int
    #: Of the forwarded ones: overtaken by others on purpose.
    reordered: int
    #: Of the forwarded ones: sent twice.
    duplicated: int
    #: Of the forwarded ones: with a flipped bit.
    corrupted: int
    #: Of the forwarded ones: marked with Congestion Experienced.
    marked: int
    #: Packets that left the wire, copies among them.
    sent: int
    #: Packets on their way.
    in_flight: int
    #: Packets that left more than a millisecond after their time: the machine was too busy.
    late: int
    #: The greatest such time, in seconds.
    latest: float
    #: What the forwarder itself failed at, by reason; all are zero on a wire that works.
    failures: Mapping[str, int]

    @classmethod
    def of(cls, told: dict[str, int]) -> Statistics:
        """From what the native forwarder tells."""
        names = (
            *("offered", "lost", "queue_dropped", "forwarded", "reordered", "duplicated"),
            *("corrupted", "marked", "sent", "in_flight", "late"),
        )
        known = {name: told.pop(name) for name in names}
        latest = told.pop("latest_us") / 1e6
        del told["received"]
        return cls(**known, latest=latest, failures=told)


class ImpairedWire(Wire):
    """A wire on which something goes wrong. `Lab.wire` makes it."""

    def __init__(
        self,
        ends: tuple[Interface, Interface],
        pool: Pool,
        halves: tuple[Wire, Wire],
        middle: Host,
        impaired: tuple[Impairment, Impairment],
    ) -> None:
        super().__init__(*ends, pool)
        #: What happens to what `a` sends, and to what `b` sends.
        self.impairments = impaired
        #: Whether the forwarder runs before all ordinary programs, and so in time.
        self.preferred = False
        self._halves = halves
        self._middle = middle
        self._process: subprocess.Popen[bytes] | None = None
        # What it said beyond the last line that was read, and answers that came to no question yet.
        self._said = b""
        self._unheard = 0
        self._errors: IO[bytes] | None = None

    def start(self, *, seed: int, frames: int, core: int | None) -> None:
        """Begin to forward."""
        config = {
            "interfaces": _INTERFACES,
            "impairments": [impairment.native() for impairment in self.impairments],
            "seed": seed,
            "frames": frames,
        }
        # Closed by `_stop`.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = self._middle.popen(
            [sys.executable, "-m", "millrace.lab.forwarder", json.dumps(config)],
            core=core,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.preferred = self._hear(_START_SECONDS)["preferred"]

    def statistics(self) -> tuple[Statistics, Statistics]:
        """What was done to what `a` sent, and to what `b` sent."""
        forth, back = self._ask("statistics")
        return Statistics.of(forth), Statistics.of(back)

    def impair(self, **wishes: Unpack[Wishes]) -> None:
        """Do this to packets from now on, in place of what was asked for before.

        Where a rate was set, what waits for it keeps its place.
        """
        impaired = impairments.read(wishes, self.a.mtu)
        self._ask("impair", *(impairment.native() for impairment in impaired))
        self.impairments = impaired

    def remove(self) -> None:
        """Take the wire away; it is no error if it or its hosts are gone."""
        self._stop()
        for half in self._halves:
            half.remove()
        self._middle.remove()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._errors is not None:
            self._errors.close()

    def _ask(self, *words: object) -> Any:
        if self._process is None or self._process.stdin is None:
            raise LabError(f"{self} was removed")
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._hear(_ANSWER_SECONDS)

    def _hear(self, seconds: float) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        # An answer that came too late is still to be read, and none to the next question.
        self._unheard += 1
        line = b""
        while self._unheard:
            line = self._line(self._process.stdout.fileno(), seconds)
            self._unheard -= 1
        return json.loads(line)

    def _line(self, out: int, seconds: float) -> bytes:
        while b"\n" not in self._said:
            ready, _, _ = select.select([out], [], [], seconds)
            if not ready:
                raise LabError(f"the forwarder of {self} does not answer within {seconds:g} s")
            said = os.read(out, 1 << 16)
            if not said:
                raise self._ended()
            self._said += said
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _ended(self) -> LabError:
        assert self._process is not None
        assert self._errors is not None
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip() or "it wrote nothing"
        return LabError(f"the forwarder of {self} ended with status {status}: {said}")


def join_impaired(
    lab: str,
    number: int,
    a: Host,
    b: Host,
    pool: Pool,
    wishes: Wishes,
    *,
    seed: int,
    core: int | None,
    queues: int,
    mtu: int,
    addresses: tuple[str | None, str | None],
    offloads: Mapping[str, bool],
    macs: tuple[str, str, str, str],
    names: tuple[str, str],
) -> ImpairedWire:
    """Make both halves and the middle, and start to forward."""
    impairments.whole("mtu of an impaired wire", mtu, MIN_MTU, MAX_MTU)
    impairments.whole("seed", seed)
    impaired = impairments.read(wishes, mtu)
    for name, on in offloads.items():
        if on and name in CABLE_OFFLOADS:
            raise LabError(
                f"the ends of an impaired wire cannot have the offload {name}: "
                "their packets would not be as on a cable"
            )
    frames = sum(impairment.packets_on_the_way(mtu) for impairment in impaired) * 2
    # A name that no host of the lab can have.
    middle = Host("~", leftovers.namespace_name(lab, f"~{number}"), ipv6=False)
    made: list[Wire] = []
    try:
        for host, address, name, end_mac, middle_mac, inside in zip(
            (a, b), addresses, names, macs[:2], macs[2:], _INTERFACES, strict=True
        ):
            half = join(
                host,
                middle,
                pool,
                queues=queues,
                mtu=mtu,
                addresses=(address, None),
                offloads={**CABLE_OFFLOADS, **offloads},
                macs=(end_mac, middle_mac),
                names=(name, inside),
            )
            made.append(half)
        wire = ImpairedWire((made[0].a, made[1].a), pool, (made[0], made[1]), middle, impaired)
        made.append(wire)
        frames = min(max(frames + _SPARE_FRAMES, _LEAST_FRAMES), _MOST_FRAMES)
        wire.start(seed=seed, frames=frames, core=core)
    except BaseException:
        for wire_made in reversed(made):
            wire_made.remove()
        middle.remove()
        raise
    return wire
