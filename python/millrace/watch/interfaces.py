"""What `ip -s link` and `ethtool` say of each interface, and which of Millrace's channels are on
it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millrace.host.unavailable import NotAvailable
from millrace.watch import namespaces
from millrace.watch.page import Page
from millrace.watch.processes import Process

if TYPE_CHECKING:
    from millrace.host.ethtool import Device
    from millrace.host.links import Link
    from millrace.host.snapshot import Snapshot

#: Parts of a snapshot that are shown.
PARTS = (
    "links",
    "addresses",
    "devices",
    "qdiscs",
    "xdp_features",
    "napis",
    "queue_counters",
    "receive_queues",
    "transmit_queues",
    "irqs",
)

#: Counters that should not grow.
TROUBLE = (
    "rx_errors",
    "rx_dropped",
    "rx_missed_errors",
    "rx_over_errors",
    "rx_fifo_errors",
    "rx_crc_errors",
    "rx_length_errors",
    "rx_frame_errors",
    "rx_nohandler",
    "tx_errors",
    "tx_dropped",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "collisions",
)


@dataclass(frozen=True)
class Line:
    """One interface in a line."""

    interface: str
    kind: str
    driver: str
    state: str
    mtu: int
    speed_mbit: int | None
    queues: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    trouble: int
    addresses: str
    #: Millrace processes with a channel on it.
    millrace: str
    #: A second, where two looks were taken.
    rx_pps: float | None = None
    tx_pps: float | None = None
    rx_bps: float | None = None
    tx_bps: float | None = None


def lines(
    snapshot: Snapshot,
    channels: Iterable[tuple[Process, Page]] = (),
    before: Snapshot | None = None,
) -> list[Line]:
    """All interfaces of a snapshot."""
    devices = {device.name: device for device in snapshot.devices or ()}
    users = users_of(channels)
    old = {link.index: link for link in (before.links or ())} if before is not None else {}
    seconds = snapshot.origin.clock - before.origin.clock if before is not None else 0.0
    found = []
    for link in snapshot.links or ():
        count = link.statistics
        addresses = [
            f"{one.address}/{one.prefix}"
            for one in snapshot.addresses or ()
            if one.index == link.index
        ]
        rates = _rates(old.get(link.index), link, seconds)
        found.append(
            Line(
                interface=link.name,
                kind=link.kind or ("loopback" if link.is_loopback else "device"),
                driver=_driver(devices.get(link.name)),
                state=_state(link),
                mtu=link.mtu,
                speed_mbit=_speed(devices.get(link.name)),
                queues=f"{link.rx_queues}/{link.tx_queues}",
                rx_packets=count.get("rx_packets", 0),
                tx_packets=count.get("tx_packets", 0),
                rx_bytes=count.get("rx_bytes", 0),
                tx_bytes=count.get("tx_bytes", 0),
                trouble=sum(count.get(name, 0) for name in TROUBLE),
                addresses=" ".join(addresses),
                millrace=" ".join(users.get(link.name, ())),
                rx_pps=rates.get("rx_packets"),
                tx_pps=rates.get("tx_packets"),
                rx_bps=rates.get("rx_bytes"),
                tx_bps=rates.get("tx_bytes"),
            )
        )
    return found


def _rates(old: Link | None, link: Link, seconds: float) -> dict[str, float]:
    from millrace.host.rates import differences

    if old is None or seconds <= 0:
        return {}
    changed = differences(old.statistics, link.statistics)
    rates = {name: count / seconds for name, count in changed.items()}
    # Of bytes people want bits.
    return {name: rate * 8 if name.endswith("bytes") else rate for name, rate in rates.items()}


def users_of(channels: Iterable[tuple[Process, Page]]) -> dict[str, list[str]]:
    """Processes by the interface, of this namespace, that their channel is on."""
    here = f"net:[{namespaces.own()}]"
    users: dict[str, list[str]] = {}
    for process, page in channels:
        kind, _, name = page.name.partition(":")
        if kind in ("af_packet", "af_xdp", "tap") and page.facts.get("network namespace") == here:
            users.setdefault(name, []).append(f"{process.title} ({kind})")
    return users


def _driver(device: Device | None) -> str:
    if device is None or isinstance(device.driver, NotAvailable):
        return ""
    return device.driver.name


def _speed(device: Device | None) -> int | None:
    if device is None or isinstance(device.speed, NotAvailable):
        return None
    # SPEED_UNKNOWN of linux/ethtool.h.
    return device.speed if 0 < device.speed < 0xFFFF_FFFF else None


def _state(link: Link) -> str:
    if not link.is_up:
        return "DOWN"
    state = link.operstate.upper()
    return "UP" if state == "UNKNOWN" and link.carrier else state


Section = tuple[str, list[tuple[str, str]]]


def details(
    snapshot: Snapshot, name: str, channels: Iterable[tuple[Process, Page]] = ()
) -> list[Section]:
    """All there is to say of one interface: sections of names and texts.

    Raises ValueError, with what there is, for an interface that is not there.
    """
    links = {link.name: link for link in snapshot.links or ()}
    if name not in links:
        raise ValueError(f"there is no interface {name} here; there are: {', '.join(links)}")
    link = links[name]
    devices = {device.name: device for device in snapshot.devices or ()}
    sections: list[Section] = [
        ("link", _link(snapshot, link, links)),
        ("counters", _nonzero(link.statistics)),
    ]
    device = devices.get(name)
    if device is not None:
        sections += _device(device)
    elif isinstance(snapshot.devices, NotAvailable):
        sections.append(("driver", [("", str(snapshot.devices))]))
    sections.append(("queues", _queues(snapshot, link)))
    users = users_of(channels).get(name, [])
    sections.append(("millrace", [("channel", user) for user in users]))
    return [section for section in sections if section[1]]


def _link(snapshot: Snapshot, link: Link, links: Mapping[str, Link]) -> list[tuple[str, str]]:
    numbers = {other.index: other.name for other in links.values()}
    rows = [
        ("state", f"{_state(link)}, {'' if link.carrier else 'no '}carrier"),
        ("carrier changes", str(link.carrier_changes)),
        ("hardware address", link.mac),
        ("mtu", f"{link.mtu} ({link.min_mtu} to {link.max_mtu or 'any'})"),
        ("queue", f"{link.qdisc}, {link.txqlen} packets"),
        ("queues", f"{link.rx_queues} receive, {link.tx_queues} transmit"),
        ("super-segments", f"send up to {link.gso_max_size}, receive up to {link.gro_max_size}"),
    ]
    if link.master:
        rows.append(("part of", numbers.get(link.master, str(link.master))))
    if link.lower:
        there = "" if link.lower_namespace is None else f" in namespace {link.lower_namespace}"
        other = str(link.lower) if there else numbers.get(link.lower, str(link.lower))
        rows.append(("other end or below", f"{other}{there}"))
    rows += [
        ("address", f"{one.address}/{one.prefix}")
        for one in snapshot.addresses or ()
        if one.index == link.index
    ]
    if link.xdp:
        rows.append(("XDP program", link.xdp))
    features = (snapshot.xdp_features or {}).get(link.index)
    if features is not None:
        rows.append(("XDP of the driver", " ".join(features) or "none"))
    for one in snapshot.qdiscs or ():
        if one.index == link.index and (one.drops or one.overlimits or one.requeues or one.backlog):
            text = f"{one.drops} dropped, {one.overlimits} over limit, {one.requeues} requeued"
            rows.append((f"qdisc {one.kind}", f"{text}, {one.backlog} bytes wait"))
    return rows


def _nonzero(counters: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{count:,}") for name, count in counters.items() if count]


def _device(device: Device) -> list[Section]:
    rows: list[tuple[str, str]] = []
    for title, value in (
        ("driver", device.driver),
        ("rings", device.rings),
        ("channels", device.channels),
        ("coalescing", device.coalescing),
        ("pause frames", device.pause),
        ("speed", device.speed),
        ("hardware clock", device.clock),
    ):
        rows.append((title, _text(title, value)))
    if isinstance(device.rss, NotAvailable):
        rows.append(("RSS", str(device.rss)))
    else:
        queues = device.rss.indirection
        spread = (f"queue {one}: {queues.count(one)}" for one in sorted(set(queues)))
        rows.append(("RSS", ", ".join(spread) or "no table"))
    sections: list[Section] = [("driver", rows)]
    if not isinstance(device.features, NotAvailable):
        on = sorted(name for name, one in device.features.items() if one.active)
        off = sorted(
            name for name, one in device.features.items() if not one.active and one.changeable
        )
        sections.append(("offloads", [("on", " ".join(on)), ("off", " ".join(off))]))
    if not isinstance(device.statistics, NotAvailable):
        sections.append(("driver's counters", _nonzero(device.statistics)))
    return sections


def _text(title: str, value: object) -> str:
    if isinstance(value, int):
        return f"{value} Mbit/s" if title == "speed" else str(value)
    return str(value) if isinstance(value, NotAvailable) else _fields(value)


def _fields(value: object) -> str:
    from dataclasses import fields, is_dataclass

    if not is_dataclass(value):
        return str(value)
    parts = ((one.name, getattr(value, one.name)) for one in fields(value))
    return ", ".join(f"{name} {part}" for name, part in parts if part not in (None, ""))


def _queues(snapshot: Snapshot, link: Link) -> list[tuple[str, str]]:
    napis = {napi.id: napi for napi in snapshot.napis or ()}
    irqs = {irq.number: irq for irq in snapshot.irqs or ()}
    rows = []
    for one in snapshot.queue_counters or ():
        if one.index != link.index:
            continue
        words = []
        napi = napis.get(one.napi)
        if one.napi:
            words.append(f"NAPI {one.napi}")
        if napi is not None and napi.irq:
            irq = irqs.get(napi.irq)
            cpus = irq.effective if irq is not None else NotAvailable("")
            where = f" on CPU {_list(cpus)}" if not isinstance(cpus, NotAvailable) else ""
            words.append(f"IRQ {napi.irq}{where}")
        if napi is not None and napi.threaded:
            words.append(f"thread {napi.pid}")
        words += [f"{name} {count:,}" for name, count in one.counters.items() if count]
        rows.append((f"{one.way} {one.queue}", ", ".join(words)))
    for steered in snapshot.receive_queues or ():
        if steered.interface == link.name and steered.rps_cpus:
            rows.append((f"RPS of queue {steered.queue}", f"CPUs {_list(steered.rps_cpus)}"))
    return rows


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
