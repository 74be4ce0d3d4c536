"""Sending what a template makes, at a pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from millrace._native import packets as native
from millrace.packets.generator.template import Template
from millrace.packets.stats import SendProgress

#: How long a native slice is, after which signals and `watch` have their turn.
_SLICE = 0.1


@dataclass(frozen=True)
class SendReport:
    """What was sent."""

    #: Packets that the port took, and their bytes.
    packets: int
    bytes: int
    seconds: float
    #: Packets that were due and were given up, because the port or this machine was too slow.
    behind: int
    #: How often the port had no room.
    stalls: int
    #: Whether the kernel sent the same frames over and over by itself.
    repeated: bool
    #: Packets that were taken and lost on the way out, by reason.
    drops: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Packets that the port took and that did not leave."""
        return sum(self.drops.values())

    @property
    def packets_per_s(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds if self.seconds else 0.0

    @property
    def bits_per_s(self) -> float:
        """Bits of frames a second, without preamble, check sequence and gap."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0


class Generator:
    """Packets of a template, to be sent by a port. It can be run once."""

    def __init__(
        self,
        template: Template,
        *,
        packets: int | None = None,
        seconds: float | None = None,
        packets_per_s: float | None = None,
        bits_per_s: float | None = None,
        burst: int = 1,
        batch: int = 64,
        stream: int | None = None,
    ) -> None:
        """Ends after so many `packets` or `seconds`; without either, when it is stopped.

        The pace is in packets, or in bits of frames a second; without it, as many as go. `burst`
        packets leave together. `stream`: each packet carries its number and the time in the first
        16 bytes of its payload, as one of this stream (0 to 65535), for a `Meter`.

        Raises ValueError for what makes no sense.
        """
        if stream is not None and not 0 <= stream <= 65535:
            raise ValueError(f"a stream is 0 to 65535, not {stream}")
        self._native = native.Generator(
            **template.native(),
            stamp=stream,
            packets=packets,
            seconds=seconds,
            packets_per_s=packets_per_s,
            bits_per_s=bits_per_s,
            burst=burst,
            batch=batch,
        )
        self._stopped = False

    @property
    def period(self) -> int | None:
        """After how many packets the same come again; None: never."""
        return self._native.period

    def render(self, count: int) -> list[bytes]:
        """The next packets, which are not sent by that: as many as fit into a gigabyte."""
        return self._native.render(count)

    def run(
        self,
        port: native.Port,
        watch: Callable[[SendProgress], None] | None = None,
        *,
        interval: float = 0.5,
    ) -> SendReport:
        """Send to the end; `watch` is called every `interval` seconds.

        Raises OSError: an interface that is gone or down (ENETDOWN), a port that takes nothing for
        long (TimeoutError); ValueError for packets that the port never takes.
        """
        before = port.stats()["drops"]
        looked = 0.0
        try:
            while not self._stopped and not self._native.step(port, min(_SLICE, interval)):
                progress = self._native.sent()
                if watch is not None and progress["seconds"] - looked >= interval:
                    looked = progress["seconds"]
                    watch(progress)
        finally:
            self._native.finish(port)
        if watch is not None:
            watch(self._native.sent())
        after = port.stats()["drops"]
        drops = {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if name.startswith("tx_") and count > before.get(name, 0)
        }
        return SendReport(**self._native.sent(), drops=drops)

    def stop(self) -> None:
        """End `run`, from another thread or from a signal handler."""
        self._stopped = True

    def progress(self) -> SendProgress:
        """What was sent so far."""
        return self._native.sent()
