"""What is wrong: checks of `millrace.host.checks.nic`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.ethtool import Rings
from millrace.host.platform import Bus

from .register import BAD, INFO, WARN, fault


@fault("nic-drops", BAD, "500 frames lost", "ethtool -G eth0 rx 1024")
def ring_is_too_small(server: Any) -> None:
    server.link_counts(rx_missed_errors=500)


@fault(
    "nic-drops",
    BAD,
    "7 frames lost in 10.0 s (0.7/s): rx_no_buffer_count 7",
    "ethtool -G eth0 rx 1024",
)
def driver_counts_it_by_its_own_name(server: Any) -> None:
    server.device(statistics={"rx_no_buffer_count": 0, "rx_xdp_discard": 0})
    (device,) = server.after.devices
    later = {"rx_no_buffer_count": 7, "rx_xdp_discard": 900}  # the second was asked for
    server.later(devices=(dataclasses.replace(device, statistics=later),))


@fault("nic-drops", BAD, "rx-3 rx-hw-drops 9")
def queue_drops_and_ring_is_at_its_most(server: Any) -> None:
    server.device(rings=Rings(8160, 8160, 512, 8160))
    counters = {"rx-packets": 1000, "rx-hw-drops": 0}

    def counted(drops: int) -> Any:
        return tuple(
            dataclasses.replace(one, counters={**counters, "rx-hw-drops": drops})
            if (one.way, one.queue) == ("rx", 3)
            else one
            for one in server.before.queue_counters
        )

    server.set(queue_counters=counted(0)).later(queue_counters=counted(9))


@fault("link-errors", BAD, "12 damaged frames", "ethtool -m eth0")
def cable_is_bad(server: Any) -> None:
    server.link_counts(rx_crc_errors=12)


@fault("link-down", BAD, "state is down")
def no_carrier(server: Any) -> None:
    server.link(carrier=False, operstate="down")


@fault("link-down", WARN, "changed 4 times")
def carrier_comes_and_goes(server: Any) -> None:
    server.later(
        links=tuple(dataclasses.replace(one, carrier_changes=6) for one in server.after.links)
    )


@fault("mtu-mismatch", BAD, "ports of br0 differ", "echo 1400 > /sys/class/net/eth0/mtu")
def ports_of_a_bridge(server: Any) -> None:
    lo, eth0 = server.after.links
    bridge = dataclasses.replace(eth0, name="br0", index=9, kind="bridge")
    eth1 = dataclasses.replace(eth0, name="eth1", index=3, master=9, mtu=1400)
    server.set(links=(lo, dataclasses.replace(eth0, master=9), eth1, bridge))


@fault("mtu-mismatch", BAD, "the pair", "echo 1500 > /sys/class/net/v1/mtu")
def ends_of_a_pair(server: Any) -> None:
    lo, eth0 = server.after.links
    one = dataclasses.replace(eth0, name="v0", index=3, kind="veth", lower=4)
    other = dataclasses.replace(eth0, name="v1", index=4, kind="veth", lower=3, mtu=9000)
    server.set(links=(lo, eth0, one, other))


@fault("promiscuous", INFO, "eth0 is promiscuous", "ip link set dev eth0 promisc off")
def somebody_captures(server: Any) -> None:
    server.link(flags=0x1143)


@fault("stack-drops", WARN, "frames dropped by the stack", "tcpdump")
def unknown_protocol(server: Any) -> None:
    server.link_counts(rx_dropped=9000)


@fault("stack-drops", INFO, "frames dropped by the stack")
def a_little_of_an_unknown_protocol(server: Any) -> None:
    server.link_counts(rx_dropped=30)


@fault("pcie-link", BAD, "the link does 25 Gbit/s")
def one_lane(server: Any) -> None:
    server.set(buses=(Bus("eth0", "0000:03:00.0", 0, "8.0 GT/s PCIe", "8.0 GT/s PCIe", 1, 8),))


@fault("pcie-link", WARN, "the card can do")
def slower_slot(server: Any) -> None:
    server.set(buses=(Bus("eth0", "0000:03:00.0", 0, "8.0 GT/s PCIe", "16.0 GT/s PCIe", 8, 8),))


@fault("xdp-modes", INFO, "no native XDP")
def driver_without_xdp(server: Any) -> None:
    server.set(xdp_features={2: ()})
