"""The device and its link: what it lost, whether it is joined up, what it could do."""

from __future__ import annotations

import re

from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    device,
    info,
    ok,
    setting_step,
    warn,
)
from millrace.host.finding import NAMESPACE, Layer, Scope, Step
from millrace.host.links import by_index
from millrace.host.unavailable import NotAvailable, known

_DEVICE = Scope("device")

#: Names of drivers' own counters for frames that found no descriptor or buffer.
NO_ROOM = re.compile(
    r"(^|[._])(rx_)?(missed|no_buf|nobuf|no_dma|fifo|overrun|out_of_buffer|discard)"
    r"|rx_.*(no_buffer|missed_errors|oversize_dropped|out_of_buffer)",
    re.IGNORECASE,
)

#: Names of drivers' own counters of drops that an XDP program or a rule asked for, or that say
#: nothing of a shortage.
_BY_WISH = re.compile(r"xdp|filter|vlan|phy_discard_by_rule|multicast", re.IGNORECASE)

RING_COUNTERS = ("rx_missed_errors", "rx_fifo_errors", "rx_over_errors")
LINK_COUNTERS = ("rx_crc_errors", "rx_frame_errors", "rx_length_errors")
_QUEUE_DROPS = ("rx-hw-drops", "rx-hw-drop-overruns", "rx-alloc-fail")


def ring_losses(context: Context, name: str, index: int) -> dict[str, int]:
    """Counters of one interface that tell of frames for which the host had no room."""
    rates = context.rates
    found = {
        counter: count
        for counter in RING_COUNTERS
        if (count := rates.links.get(name, {}).get(counter, 0))
    }
    for counter, count in rates.devices.get(name, {}).items():
        if count and NO_ROOM.search(counter) and not _BY_WISH.search(counter):
            found[counter] = count
    for (number, way, queue), counters in rates.queues.items():
        for counter in _QUEUE_DROPS:
            if number == index and counters.get(counter):
                found[f"{way}-{queue} {counter}"] = counters[counter]
    return found


@check(
    "nic-drops",
    Layer.NIC,
    1,
    _DEVICE,
    why="The card had frames and the host had no descriptor for them: nothing above ever sees "
    "them. TCP repairs it by sending again, UDP loses the data.",
    source="Documentation/networking/statistics.rst; netdata counts any FIFO error in 10 min",
    nothing="no interface is up",
)
def nic_drops(context: Context) -> Outcomes:
    """Frames that the device dropped because the receive ring was full.

    Reads rx_missed_errors, rx_fifo_errors and rx_over_errors of the interface, the driver's own
    counters for missing buffers (`ethtool -S`), and rx-hw-drops, rx-hw-drop-overruns and
    rx-alloc-fail of each queue (netdev's qstats). Any drop in the window is bad. A larger ring
    takes longer bursts; more queues, or a CPU with time left, drain it faster. A ring that no
    longer fits the cache makes every packet dearer (see ring-cache).
    """
    for link in context.links:
        losses = ring_losses(context, link.name, link.index)
        if not losses:
            yield ok(context.none("frame lost for want of a descriptor"), device(link))
            continue
        # One loss shows in several counters, so the largest is told, not the sum.
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(losses.items())[:4])
        evidence = f"{context.amount(max(losses.values()), 'frames lost')}: {told}"
        rings = context.devices[link.name].rings if link.name in context.devices else None
        if rings is None or isinstance(rings, NotAvailable):
            yield bad(
                evidence,
                device(link),
                advice="the driver has no setting for its rings; drain them faster: more queues, "
                "or a CPU with time left",
            )
        elif rings.rx < rings.rx_max:
            larger = min(rings.rx_max, rings.rx * 2)
            yield bad(
                evidence,
                device(link),
                steps=[setting_step(link, "ring", "rx", rings.rx, larger)],
                risk="the link goes down for a moment; a larger ring uses more memory and cache",
            )
        else:
            yield bad(
                evidence,
                device(link),
                advice=f"the ring is at its most, {rings.rx_max}: use more queues, or free the CPU "
                "that polls this one",
            )


@check(
    "link-errors",
    Layer.NIC,
    2,
    _DEVICE,
    why="Frames came in damaged. No setting of this host mends a cable, a transceiver or a "
    "mismatch of frame sizes.",
    source="Documentation/networking/statistics.rst",
    nothing="no interface is up",
)
def link_errors(context: Context) -> Outcomes:
    """Frames with a wrong checksum, alignment or length, and symbol errors of the line.

    Reads rx_crc_errors, rx_frame_errors and rx_length_errors, and the driver's symbol and alignment
    errors. Any in the window is bad. `ethtool -m` shows the transceiver's light levels.
    """
    for link in context.links:
        counted = context.rates.links.get(link.name, {})
        found = {name: counted.get(name, 0) for name in LINK_COUNTERS}
        for name, count in context.rates.devices.get(link.name, {}).items():
            if re.search(r"symbol|align|rx_crc|fcs_err|jabber", name, re.IGNORECASE):
                found[name] = max(count, found.get(name, 0))
        losses = {name: count for name, count in found.items() if count}
        if losses:
            told = ", ".join(f"{name} {count:,}" for name, count in sorted(losses.items()))
            yield bad(
                f"{context.amount(max(losses.values()), 'damaged frames')}: {told}",
                device(link),
                advice="change the cable or the transceiver; for lengths compare the MTU at both "
                "ends",
                command=f"ethtool -m {link.name}",
            )
        else:
            yield ok(context.none("damaged frame"), device(link))


@check(
    "link-down",
    Layer.NIC,
    0,
    _DEVICE,
    why="The interface is set up and has no carrier: nothing can come or go. A link that "
    "comes and goes loses all that is on its way each time.",
    source="RFC 2863, ifOperStatus; Documentation/networking/operstates.rst",
    nothing="no interface is up",
)
def link_down(context: Context) -> Outcomes:
    """An interface that is up without a carrier, or whose carrier changed in the window.

    And one that was asked for by name and is not set up at all.
    """
    for link in known(context.now.links):
        if link.name == context.interface and not link.is_up:
            yield bad(
                f"{link.name} is not set up",
                device(link),
                advice="set it up",
                command=f"ip link set dev {link.name} up",
            )
    before = by_index(context.window.before.links or ()) if context.window else {}
    for link in context.links:
        changes = 0
        if link.index in before:
            changes = link.carrier_changes - before[link.index].carrier_changes
        if not link.carrier or link.operstate in ("down", "lowerlayerdown"):
            yield bad(
                f"{link.name} is up and its state is {link.operstate or 'unknown'}",
                device(link),
                advice="look at the cable, the switch's port and the other end; take it down "
                "if nothing is to be there",
            )
        elif changes > 0:
            yield warn(
                f"the carrier changed {changes} times in {context.rates.seconds:.1f} s",
                device(link),
                advice="look at the cable and at what the switch's port logs",
            )
        else:
            yield ok(f"{link.name} is {link.operstate}", device(link))


@check(
    "mtu-mismatch",
    Layer.NIC,
    39,
    NAMESPACE,
    why="Where interfaces of one bridge or one path differ in MTU, larger frames vanish without "
    "an answer on the smaller one: pings work and transfers hang.",
    source="net/core/dev.c is_skb_forwardable; RFC 2923",
)
def mtu_mismatch(context: Context) -> Outcomes:
    """Interfaces of one bridge or bond with different MTUs, and pairs whose ends differ.

    A bridge drops a frame that is larger than the MTU of the port it would leave by, and tells
    nobody. The same happens on a veth pair whose ends differ.
    """
    links = by_index(known(context.now.links))
    members: dict[int, list[str]] = {}
    for link in links.values():
        if link.master:
            members.setdefault(link.master, []).append(link.name)
    by_name = {link.name: link for link in links.values()}
    found = False
    for number, names in members.items():
        master = links.get(number)
        sizes = {by_name[name].mtu for name in names}
        if len(sizes) > 1:
            found = True
            smallest = min(sizes)
            told = ", ".join(f"{name} {by_name[name].mtu}" for name in sorted(names))
            yield bad(
                f"ports of {master.name if master else number} differ: {told}",
                device(master.name if master else str(number)),
                steps=[
                    Step(f"file:/sys/class/net/{name}/mtu", str(by_name[name].mtu), str(smallest))
                    for name in sorted(names)
                    if by_name[name].mtu != smallest
                ],
                risk="frames above the smaller size are cut or refused from then on",
            )
    for link in links.values():
        other = links.get(link.lower)
        here = link.lower_namespace is None
        if link.kind != "veth" or not here or other is None or other.index < link.index:
            continue
        if other.mtu != link.mtu:
            found = True
            small, large = sorted((link, other), key=lambda end: end.mtu)
            yield bad(
                f"the pair {link.name} ({link.mtu}) and {other.name} ({other.mtu}) differs",
                device(link),
                steps=[
                    Step(f"file:/sys/class/net/{large.name}/mtu", str(large.mtu), str(small.mtu))
                ],
            )
    if not found:
        yield ok("interfaces that belong together have one MTU")


@check(
    "promiscuous",
    Layer.NIC,
    0,
    _DEVICE,
    why="The card hands up the frames of others as well, and each is looked at before it is "
    "thrown away.",
    source="packet(7), PACKET_MR_PROMISC",
)
def promiscuous(context: Context) -> Outcomes:
    """An interface that receives every frame, whoever it is for. Ports of a bridge have to."""
    for link in context.links:
        if link.flags & 0x100 and not link.master and link.kind not in ("bridge", "ovs"):
            yield info(
                f"{link.name} is promiscuous",
                device(link),
                advice="a capture runs, or somebody left it so",
                command=f"ip link set dev {link.name} promisc off",
            )
        else:
            yield ok("only its own frames" if not link.master else "a port", device(link))


@check(
    "stack-drops",
    Layer.PROTOCOL,
    7,
    _DEVICE,
    why="The kernel got the frames and threw them away before any protocol: their type is one "
    "that nobody handles, or a rule or a full queue stopped them.",
    source="Documentation/networking/statistics.rst, rx_dropped and rx_nohandler",
)
def stack_drops(context: Context) -> Outcomes:
    """Frames that an interface counted as received and then dropped (rx_dropped, rx_nohandler).

    Some are normal on a switch's port (spanning tree, LLDP, other VLANs), so it is a warning from
    2 % of what came in, and information below that. `millrace drops` names each reason.
    """
    for link in context.links:
        counted = context.rates.links.get(link.name, {})
        dropped = counted.get("rx_dropped", 0) + counted.get("rx_nohandler", 0)
        if not dropped:
            yield ok(context.none("frame dropped by the stack"), device(link))
            continue
        came = max(counted.get("rx_packets", 0), dropped)
        share = dropped / came
        evidence = context.amount(dropped, f"frames dropped by the stack, {share:.1%} of all")
        verdict = warn if share >= 0.02 and dropped >= 20 else info
        yield verdict(
            evidence,
            device(link),
            advice="see which they are, and stop them at the switch or give them a handler",
            command=f"tcpdump -c 20 -n -e -i {link.name} not ip and not ip6 and not arp",
        )


@check(
    "pcie-link",
    Layer.NIC,
    58,
    _DEVICE,
    why="The slot gives the card fewer lanes or a lower speed than it could use; at full rate "
    "frames are lost before they reach memory.",
    source="Documentation/ABI/testing/sysfs-bus-pci, current_link_speed",
    nothing="no device here is on a PCIe bus",
)
def pcie_link(context: Context) -> Outcomes:
    """A PCIe link that was trained below what the card can do.

    It is bad where the slot cannot carry the speed of the network link, and a warning otherwise.
    """
    names = {link.name for link in context.links}
    for bus in known(context.now.buses):
        speed, best = bus.link_speed, bus.link_speed_max
        width, widest = bus.link_width, bus.link_width_max
        if bus.interface not in names or not bus.pci:
            continue
        if isinstance(speed, NotAvailable) or isinstance(width, NotAvailable):
            yield ok("a device that is on no real PCIe link", device(bus.interface))
            continue
        carried = _gigatransfers(speed) * width * 0.8
        one = context.devices.get(bus.interface)
        wanted = one.speed / 1000 if one and isinstance(one.speed, int) else 0.0
        told = f"{speed} x{width}, about {carried:.0f} Gbit/s for data"
        if wanted and carried < wanted:
            yield bad(
                f"{told}; the link does {wanted:g} Gbit/s",
                device(bus.interface),
                advice="put the card into a slot with more lanes",
            )
        elif speed != best or width != widest:
            yield warn(
                f"{told}; the card can do {best} x{widest}",
                device(bus.interface),
                advice="put the card into another slot, or look at the firmware's settings",
            )
        else:
            yield ok(told, device(bus.interface))


def _gigatransfers(text: str) -> float:
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0


@check(
    "xdp-modes",
    Layer.NIC,
    21,
    _DEVICE,
    why="It decides what a Millrace port can do here: without native XDP an AF_XDP port copies "
    "each frame after the kernel has made a buffer for it.",
    source="Documentation/netlink/specs/netdev.yaml, xdp-act",
)
def xdp_modes(context: Context) -> Outcomes:
    """What the driver can do with XDP, and so which kinds of AF_XDP port are possible."""
    features = known(context.now.xdp_features)
    for link in context.links:
        can = features.get(link.index, ())
        if "basic" not in can:
            yield info(
                f"{link.name}'s driver has no native XDP: AF_XDP works in generic (copying) mode",
                device(link),
                advice="take af_packet there, or a card whose driver has XDP",
            )
        elif "xsk-zerocopy" in can:
            yield ok("native XDP with zero copy", device(link))
        else:
            yield ok("native XDP, AF_XDP copies", device(link))
