"""Each check finds its fault in an edited recording, and nothing on a healthy machine.

A fault is a function that spoils the healthy server. The last tests hold that no check is without
one, and that none breaks on recordings that are damaged.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from millrace.host import NotAvailable, codec
from millrace.host.checks import CHECKS, Goal
from millrace.host.cpu import IdleState
from millrace.host.ethtool import Channels, Coalescing, Rings, Rss
from millrace.host.finding import SEVERITY, Finding, Verdict
from millrace.host.links import Address, Neighbour, Qdisc, Route
from millrace.host.memory import Hugepages, Pressure
from millrace.host.own import OwnChannel
from millrace.host.platform import Bus, Kernel, Platform, Privileges
from millrace.host.processes import Thread
from millrace.host.queues import ReceiveQueue
from millrace.host.snapshot import Snapshot
from millrace.host.sockets import TimeWait

BAD, WARN, INFO, OK, SKIP = Verdict.BAD, Verdict.WARN, Verdict.INFO, Verdict.OK, Verdict.SKIP


@dataclass(frozen=True)
class Fault:
    check: str
    verdict: Verdict
    says: str
    spoil: Callable[..., Any]
    goal: Goal
    #: A part of the shell line that mends it; "" where nothing that can be pasted does.
    shell: str

    def __str__(self) -> str:
        return f"{self.check}: {self.spoil.__name__}"


FAULTS: list[Fault] = []


def fault(
    check: str, verdict: Verdict, says: str, shell: str = "", goal: Goal = Goal.NONE
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(spoil: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(check, verdict, says, spoil, goal, shell))
        return spoil

    return register


def worst(findings: list[Finding]) -> Finding:
    return min(findings, key=lambda one: SEVERITY[one.verdict])


# The device and its link.


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


# Rings, channels, coalescing.


@fault("ring-size", WARN, "frames are lost", "ethtool -G eth0 rx 1024")
def small_ring_loses(server: Any) -> None:
    server.link_counts(rx_missed_errors=10)


@fault("ring-size", INFO, "throughput wants", "ethtool -G eth0 rx 1024", Goal.THROUGHPUT)
def small_ring_for_throughput(server: Any) -> None:
    server.device(rings=Rings(256, 8160, 512, 8160))


@fault("ring-cache", WARN, "8 rings of 8160", "ethtool -G eth0 rx 512", Goal.LATENCY)
def ring_beyond_the_cache(server: Any) -> None:
    server.device(rings=Rings(8160, 8160, 512, 8160))


@fault("coalescing", WARN, "rx-usecs 50", "ethtool -C eth0 rx-usecs 0", Goal.LATENCY)
def interrupts_are_held_back(server: Any) -> None:
    server.device(coalescing=Coalescing(50, None, 50, None, True, True))


@fault("coalescing", WARN, "interrupts/s", "ethtool -C eth0 rx-usecs 32", Goal.THROUGHPUT)
def too_many_interrupts(server: Any) -> None:
    server.device(coalescing=Coalescing(0, None, 0, None, False, False))
    server.later(
        irqs=tuple(
            dataclasses.replace(irq, counts={0: irq.counts[0] + 600_000})
            for irq in server.after.irqs
        )
    )


@fault("channels", WARN, "2 of 16 receive queues", "ethtool -L eth0 combined 8", Goal.THROUGHPUT)
def too_few_queues(server: Any) -> None:
    server.device(channels=Channels(0, 0, 0, 0, 2, 16))


@fault("channels", INFO, "16 of 16 receive queues", "ethtool -L eth0 combined 8")
def more_queues_than_cores(server: Any) -> None:
    server.device(channels=Channels(0, 0, 0, 0, 16, 16))


# Steering.


@fault("rss-balance", WARN, "queue 5 took 70%", "rx-flow-hash udp4 sdfn")
def one_queue_takes_all(server: Any) -> None:
    server.queue_packets(*[5000] * 5, 82_000, 5000, 5000)


@fault("rss-table", WARN, "nothing goes to queue 1-7", "ethtool -X eth0 equal 8")
def table_leaves_queues_out(server: Any) -> None:
    server.device(rss=Rss(1, (0,) * 128, "6d5a"))


@fault("rss-table", WARN, "unevenly", "ethtool -X eth0 equal 8")
def table_is_uneven(server: Any) -> None:
    server.device(rss=Rss(1, tuple(range(8)) * 8 + (0,) * 64, "6d5a"))


def one_queue(server: Any) -> None:
    server.set(receive_queues=(ReceiveQueue("eth0", 0, (), 0),))


@fault("rps-single-queue", WARN, "1 queue(s) for 8 CPUs", "rx-0/rps_cpus")
def one_cpu_receives(server: Any) -> None:
    one_queue(server)
    server.softirqs("NET_RX", cpu0=100_000)
    server.times(0, softirq=0.6)


@fault("rps-one-cpu", WARN, "goes to CPU 3 alone", "echo ff > /sys/class/net/eth0/queues")
def rps_to_one_cpu(server: Any) -> None:
    server.set(receive_queues=(ReceiveQueue("eth0", 0, (3,), 0),))


@fault("rps-redundant", WARN, "8 receive queues for 8 CPUs", "echo 0 > /sys/class/net/eth0")
def rps_and_rss(server: Any) -> None:
    server.receive_queues(rps_cpus=(0, 1, 2, 3))


@fault("rfs", WARN, "rps_sock_flow_entries is 0", "sysctl -w net.core.rps_sock_flow_entries=32768")
def half_of_rfs(server: Any) -> None:
    server.receive_queues(rps_flow_count=4096)


@fault("rfs", WARN, "rps_flow_cnt of eth0 is 0", "echo 4096 > /sys/class/net/eth0/queues/rx-0")
def other_half_of_rfs(server: Any) -> None:
    server.receive_queues(rps_cpus=(0, 1)).sysctl(net__core__rps_sock_flow_entries=32768)


@fault("arfs", WARN, "ntuple is off", "ethtool -K eth0 rx-ntuple-filter on")
def rfs_that_hardware_could_do(server: Any) -> None:
    server.receive_queues(rps_flow_count=4096)


@fault("xps", INFO, "no CPU has its own", "tx-1/xps_cpus")
def no_xps(server: Any) -> None:
    server.set(
        transmit_queues=tuple(
            dataclasses.replace(one, xps_cpus=()) for one in server.after.transmit_queues
        )
    )


@fault("softirq-balance", BAD, "CPU 2 spends 70%", "millrace tune")
def one_cpu_in_softirqs(server: Any) -> None:
    server.times(2, softirq=0.7)


# Offloads.


@fault("gro", WARN, "GRO is off", "ethtool -K eth0 rx-gro on")
def no_gro(server: Any) -> None:
    server.features(rx_gro=False)


@fault("lro-forwarding", BAD, "LRO is on", "ethtool -K eth0 rx-lro off")
def lro_on_a_router(server: Any) -> None:
    server.features(rx_lro=True).sysctl(net__ipv4__ip_forward=1)


@fault("tx-offloads", WARN, "off: tso", "tx-tcp-segmentation on")
def no_segmentation(server: Any) -> None:
    server.features(tx_tcp_segmentation=False, tx_tcp6_segmentation=False)


@fault("tx-offloads", BAD, "off: tx, gso", "tx-checksum-ip-generic on", Goal.THROUGHPUT)
def no_checksums(server: Any) -> None:
    server.features(tx_checksum_ip_generic=False, tx_generic_segmentation=False)


def channel(server: Any, **values: int) -> None:
    """A channel of ours; the values are counted in the window."""
    gauges = {"frames": 4096, "frames_free": 4000, "connections": 5, "connections_most": 1000}
    begin = dict.fromkeys(values, 0) | gauges
    one = OwnChannel(99, "echo", "af_xdp:eth0", 1, 3, begin)
    server.set(own=(one,)).later(own=(dataclasses.replace(one, values=begin | values),))


@fault("offloads-under-millrace", BAD, "on: lro", "ethtool -K eth0 rx-lro off")
def lro_under_a_port(server: Any) -> None:
    channel(server)
    server.features(rx_lro=True)


# The receive path of the CPUs.


@fault("softnet-drops", BAD, "3,000 packets dropped", "net.core.netdev_max_backlog=2000")
def backlog_overflows(server: Any) -> None:
    server.softnet(1, dropped=3000)


@fault("time-squeeze", WARN, "40 rounds cut short", "net.core.netdev_budget=600")
def budget_is_short(server: Any) -> None:
    server.softnet(0, squeezed=40)


@fault("flow-limit", INFO, "70 packets of the largest flows")
def elephant(server: Any) -> None:
    server.softnet(0, flow_limit=70)


@fault("backlog-standing", BAD, "900 packets wait on CPU 4")
def backlog_stands(server: Any) -> None:
    rows = tuple(
        dataclasses.replace(row, backlog=900 if row.cpu == 4 else 0)
        for row in server.before.softnet
    )
    server.set(softnet=rows)


@fault("ksoftirqd", WARN, "ksoftirqd of CPU 2 used 40%")
def ksoftirqd_is_busy(server: Any) -> None:
    threads = tuple(
        dataclasses.replace(one, seconds=one.seconds + 4.0 * (one.name == "ksoftirqd/2"))
        for one in server.after.kernel_threads
    )
    server.later(kernel_threads=threads)


@fault("softirq-livelock", BAD, "CPU 1 spent 95%")
def livelock(server: Any) -> None:
    server.times(1, softirq=0.95)


@fault("threaded-napi", WARN, "1 NAPI threads of eth0", "taskset -pc 0 77")
def loose_napi_thread(server: Any) -> None:
    napi = dataclasses.replace(server.after.napis[0], pid=77, threaded=True)
    thread = Thread(77, 77, "napi/eth0-100", tuple(range(8)), 0, 1.0, 0, 0, "other")
    server.set(napis=(napi,), kernel_threads=(*server.after.kernel_threads, thread))


@fault("busy-poll", WARN, "busy_read 0", "sysctl -w net.core.busy_read=50", Goal.LATENCY)
def nobody_polls(server: Any) -> None:
    server.sysctl(net__core__busy_read=0)


# IP and its neighbours.


@fault("rp-filter-drops", BAD, "80 packets dropped", "net/ipv4/conf/eth0/rp_filter=2")
def asymmetric_route(server: Any) -> None:
    server.sysctl(**{"net/ipv4/conf/eth0/rp_filter": 1})
    server.counters(TcpExtIPReversePathFilter=80)


@fault("rp-filter", WARN, "several interfaces lead to one place", "rp_filter=2")
def strict_with_two_uplinks(server: Any) -> None:
    lo, eth0 = server.after.links
    eth1 = dataclasses.replace(eth0, name="eth1", index=3)
    server.set(
        links=(lo, eth0, eth1),
        routes=(*server.after.routes, Route(4, "default", "198.51.100.1", 3, 0, "", 0)),
    )
    server.sysctl(**{"net/ipv4/conf/eth0/rp_filter": 1, "net/ipv4/conf/eth1/rp_filter": 1})


@fault("arp-flux", WARN, "eth0, eth1 all have addresses", "net.ipv4.conf.all.arp_ignore=1")
def two_interfaces_in_one_network(server: Any) -> None:
    lo, eth0 = server.after.links
    server.set(
        links=(lo, eth0, dataclasses.replace(eth0, name="eth1", index=3)),
        addresses=(*server.after.addresses, Address(3, 4, "192.0.2.7", 24, 128)),
    )


@fault("duplicate-address", BAD, "2001:db8::1 of eth0 is somebody else's")
def address_is_taken(server: Any) -> None:
    server.set(addresses=(*server.after.addresses, Address(2, 6, "2001:db8::1", 64, 0x88)))


@fault("no-route", WARN, "12 packets without a route", "ip route get")
def nowhere_to_go(server: Any) -> None:
    server.counters(IpOutNoRoutes=12)


@fault("ip-header-errors", WARN, "50 times the time to live was over")
def loop_of_routes(server: Any) -> None:
    server.counters(IpInHdrErrors=60, IcmpOutTimeExcds=50)


@fault("ip-wrong-address", WARN, "for addresses of others", "net.ipv4.ip_forward=1")
def not_a_router(server: Any) -> None:
    server.counters(IpInAddrErrors=40)


@fault("reassembly", WARN, "30 datagrams left in pieces")
def fragments_are_lost(server: Any) -> None:
    server.counters(IpReasmFails=30, IpReasmTimeout=30)


@fault("reassembly", WARN, "fragments hold", "net.ipv4.ipfrag_high_thresh=8388608")
def no_memory_for_fragments(server: Any) -> None:
    server.counters(IpReasmFails=30)


@fault("pmtu-failures", WARN, "20 packets too large", "net.ipv4.tcp_mtu_probing=1")
def path_is_too_narrow(server: Any) -> None:
    server.counters(IpFragFails=20)


@fault("neighbour-table", BAD, "9 new ones refused", "gc_thresh3=4096")
def neighbours_do_not_fit(server: Any) -> None:
    server.later(neighbour_counters={**server.after.neighbour_counters, "arp.table_fulls": 9})


@fault("neighbour-table", WARN, "700 entries of 1,024", "gc_thresh2=2048")
def many_neighbours(server: Any) -> None:
    server.set(neighbour_counters={"arp.entries": 700, "arp.table_fulls": 0})


@fault("neighbour-failed", BAD, "a gateway does not answer: 192.0.2.254")
def gateway_is_dead(server: Any) -> None:
    server.set(neighbours=(Neighbour(2, 4, "192.0.2.254", "", "failed"),))


@fault("neighbour-failed", WARN, "3 neighbours do not answer")
def some_do_not_answer(server: Any) -> None:
    dead = tuple(Neighbour(2, 4, f"192.0.2.{n}", "", "failed") for n in (7, 8, 9))
    server.set(neighbours=dead)


@fault("conntrack-table", WARN, "250,000 of 262,144", "net.netfilter.nf_conntrack_max=524288")
def conntrack_is_nearly_full(server: Any) -> None:
    server.sysctl(net__netfilter__nf_conntrack_count=250_000)


@fault("conntrack-table", BAD, "33 packets dropped", "net.netfilter.nf_conntrack_max=524288")
def conntrack_drops(server: Any) -> None:
    server.later(conntrack={"drop": 33, "early_drop": 0, "insert_failed": 0})


@fault("icmp-errors", INFO, "500 ICMP errors sent", "tcpdump")
def somebody_scans(server: Any) -> None:
    server.counters(IcmpOutDestUnreachs=500)


@fault("kernel-resets", WARN, "500 resets sent by the kernel")
def kernel_answers_too(server: Any) -> None:
    channel(server)
    server.counters(TcpOutRsts=500)


@fault("drop-reasons", BAD, "NETFILTER_DROP: 20,000 packets dropped", "millrace drops")
def a_rule_drops(server: Any) -> None:
    server.set(drops={"NETFILTER_DROP": 5}).later(drops={"NETFILTER_DROP": 20_005})


# Sockets.


@fault("udp-receive-buffer", BAD, "200 datagrams dropped", "net.core.rmem_max=8388608")
def reader_is_slow(server: Any) -> None:
    server.counters(UdpRcvbufErrors=200, UdpInDatagrams=800)


@fault("udp-memory", BAD, "15 datagrams dropped", "sysctl net.ipv4.udp_mem")
def udp_is_out_of_memory(server: Any) -> None:
    server.counters(UdpMemErrors=15)


@fault("udp-send-buffer", WARN, "15 datagrams not sent")
def sender_is_too_fast(server: Any) -> None:
    server.counters(UdpSndbufErrors=15)


@fault("checksum-errors", BAD, "TcpInCsumErrors 4, UdpInCsumErrors 5")
def damaged_on_the_way(server: Any) -> None:
    server.counters(TcpInCsumErrors=4, UdpInCsumErrors=5)


@fault("udp-no-port", WARN, "90 datagrams for nobody", "tcpdump")
def service_is_down(server: Any) -> None:
    server.counters(UdpNoPorts=90)


@fault("tcp-refused", WARN, "120 resets sent", "tcpdump")
def tcp_service_is_down(server: Any) -> None:
    server.counters(TcpOutRsts=120)


def with_drops(make_socket: Any, server: Any, drops: int, **changes: Any) -> None:
    one = make_socket(7, protocol="udp", state="", info=None, inode=502, **changes)
    server.sockets(one)
    lossy = dataclasses.replace(one, memory=dataclasses.replace(one.memory, drops=drops))
    server.later(sockets=tuple(lossy if old.cookie == 7 else old for old in server.after.sockets))


@fault("socket-drops", BAD, "66 packets dropped in 10.0 s (6.6/s) at nginx[812]")
def this_socket_drops(server: Any, make_socket: Any) -> None:
    with_drops(make_socket, server, 66)


@fault("socket-buffer-limit", WARN, "that rmem_max allows", "net.core.rmem_max=4194304")
def buffer_was_cut(server: Any, make_socket: Any) -> None:
    memory = dataclasses.replace(make_socket().memory, receive_limit=2 * 212_992)
    server.sysctl(net__core__rmem_max=212_992)
    with_drops(make_socket, server, 66, memory=memory)


@fault("receive-queue-standing", WARN, "nginx[812] left 60,000 bytes unread")
def nobody_reads(server: Any, make_socket: Any) -> None:
    server.sockets(make_socket(7, inode=502, receive_queue=60_000))


@fault("close-wait", WARN, "12 connections in CLOSE-WAIT: nginx[812]")
def sockets_leak(server: Any, make_socket: Any) -> None:
    server.sockets(*(make_socket(n, inode=502, state="close-wait") for n in range(20, 32)))


@fault("packet-sockets", BAD, "66 packets dropped|frames dropped")
def capture_loses(server: Any, make_socket: Any) -> None:
    with_drops(make_socket, server, 66)
    for which in (server.before, server.after):
        sockets = tuple(
            dataclasses.replace(one, protocol="packet") if one.cookie == 7 else one
            for one in which.sockets
        )
        (server.set if which is server.before else server.later)(sockets=sockets)
    before = tuple(
        dataclasses.replace(one, memory=dataclasses.replace(one.memory, drops=0))
        for one in server.after.sockets
    )
    server.before = dataclasses.replace(server.before, sockets=before)


@fault("packet-sockets", INFO, "5 packet sockets look at the frames of every interface")
def many_captures(server: Any, make_socket: Any) -> None:
    server.sockets(*(make_socket(n, protocol="packet", info=None) for n in range(20, 25)))


def many_threads(server: Any, count: int) -> None:
    (process,) = server.after.processes
    threads = tuple(dataclasses.replace(process.threads[0], tid=900 + n) for n in range(count))
    server.set(processes=(dataclasses.replace(process, threads=threads),))


@fault("single-listener", INFO, "nginx[812] has one listener for 8 threads")
def one_listener_for_all(server: Any) -> None:
    many_threads(server, 8)
    server.counters(TcpPassiveOpens=50_000)


@fault("flow-locality", INFO, "nginx[812] run on other CPUs")
def read_elsewhere(server: Any) -> None:
    server.softirqs("NET_RX", cpu0=100_000, cpu1=100_000)
    server.thread(share=0.5, allowed=(6,), cpu=6)


@fault("accept-overflow", BAD, "100 connections lost")
def accept_is_slow(server: Any) -> None:
    server.counters(TcpExtListenOverflows=100, TcpExtListenDrops=100)


@fault("accept-overflow", WARN, "128 of 128", "net.core.somaxconn=4096")
def queue_was_cut(server: Any, make_socket: Any) -> None:
    server.sysctl(net__core__somaxconn=128)
    server.sockets(make_socket(7, state="listen", receive_queue=128, send_queue=128, info=None))
    server.counters(TcpExtListenOverflows=9, TcpExtListenDrops=9)


@fault("accept-queue", WARN, "3,000|3000 of 4096 wait")
def queue_stands(server: Any, make_socket: Any) -> None:
    server.sockets(make_socket(7, state="listen", receive_queue=3000, send_queue=4096, info=None))


@fault("listen-backlog", INFO, "backlog 5")
def short_backlog(server: Any, make_socket: Any) -> None:
    server.sockets(make_socket(7, state="listen", send_queue=5, info=None))


@fault("syn-flood", WARN, "5,000 SYNs answered by cookie", "tcp_max_syn_backlog")
def flood_with_cookies(server: Any) -> None:
    server.counters(TcpExtTCPReqQFullDoCookies=5000)


@fault("syn-flood", BAD, "5,000 SYNs dropped", "net.ipv4.tcp_syncookies=1")
def flood_without_cookies(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_syncookies=0).counters(TcpExtTCPReqQFullDrop=5000)


@fault("syncookies-off", WARN, "tcp_syncookies is 0", "net.ipv4.tcp_syncookies=1")
def no_cookies(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_syncookies=0)


@fault("abort-on-overflow", WARN, "tcp_abort_on_overflow is 1", "tcp_abort_on_overflow=0")
def aborts(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_abort_on_overflow=1)


# TCP.


@fault("tcp-memory-drops", BAD, "RcvPruned 12")
def data_is_pruned(server: Any) -> None:
    server.counters(TcpExtRcvPruned=12, TcpExtPruneCalled=30)


@fault("tcp-memory-drops", WARN, "PruneCalled 30", "net.ipv4.tcp_rmem=")
def memory_is_short(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_rmem="4096 131072 6291456").counters(TcpExtPruneCalled=30)


@fault("tcp-backlog-drops", WARN, "70 segments dropped", "net.ipv4.tcp_rmem=")
def socket_is_locked(server: Any) -> None:
    server.counters(TcpExtTCPBacklogDrop=70)


@fault("zero-window", WARN, "9 windows closed")
def windows_close(server: Any) -> None:
    server.counters(TcpExtTCPToZeroWindowAdv=9)


@fault("tcp-pool", BAD, "TCP holds 1,200,000 pages", "net.ipv4.tcp_mem=")
def tcp_holds_too_much(server: Any) -> None:
    server.set(sockstat={**server.after.sockstat, "TCP.mem": 1_200_000})


@fault("retransmissions", BAD, "5,000 segments sent again", "")
def path_loses(server: Any) -> None:
    server.counters(TcpRetransSegs=5000, TcpExtTCPTimeouts=50)


@fault("retransmissions", WARN, "1.50% of 100,000")
def path_loses_a_little(server: Any) -> None:
    server.counters(TcpRetransSegs=1500)


@fault("syn-retransmissions", WARN, "waiting for 198.51.100.9:443")
def nobody_answers(server: Any, make_socket: Any) -> None:
    server.counters(TcpExtTCPSynRetrans=5)
    server.sockets(
        make_socket(7, state="syn-sent", remote="198.51.100.9", remote_port=443, info=None)
    )


def busy(server: Any, make_socket: Any, **limits: int) -> None:
    one = make_socket(7)
    server.sockets(one)
    info = dataclasses.replace(one.info, busy_time=8_000_000, **limits)
    server.later(
        sockets=tuple(
            dataclasses.replace(old, info=info) if old.cookie == 7 else old
            for old in server.after.sockets
        )
    )


@fault("tcp-limited", INFO, "50% of its busy time the peer's window was full")
def peer_is_slow(server: Any, make_socket: Any) -> None:
    busy(server, make_socket, rwnd_limited=4_000_000)


@fault("tcp-limited", WARN, "our send buffer was full", "net.ipv4.tcp_wmem=")
def send_buffer_is_small(server: Any, make_socket: Any) -> None:
    busy(server, make_socket, sndbuf_limited=4_000_000)


@fault("tcp-buffers", WARN, "net.ipv4.tcp_rmem allows 1,000,000", "net.ipv4.tcp_rmem=")
def long_fat_path(server: Any, make_socket: Any) -> None:
    server.sysctl(net__ipv4__tcp_rmem="4096 131072 1000000")
    one = make_socket(7)
    info = dataclasses.replace(one.info, delivery_rate=100_000_000, min_rtt=80_000)
    server.sockets(dataclasses.replace(one, info=info))


@fault("tcp-features", WARN, "off: tcp_sack", "net.ipv4.tcp_sack=1")
def no_sack(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_sack=0)


@fault("slow-start-after-idle", INFO, "is 1", "after_idle=0", Goal.THROUGHPUT)
def starts_anew(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_slow_start_after_idle=1)


@fault("notsent-lowat", INFO, "no limit", "tcp_notsent_lowat=131072", Goal.LATENCY)
def unsent_without_limit(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_notsent_lowat=4294967295)


@fault("fast-open", INFO, "tcp_fastopen is 1", "tcp_fastopen=3", Goal.LATENCY)
def no_fast_open(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_fastopen=1)


@fault("congestion-control", WARN, "dctcp is the default", "tcp_congestion_control=cubic")
def dctcp_everywhere(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_congestion_control="dctcp")


@fault("time-wait", WARN, "40 dropped early", "tcp_max_tw_buckets=")
def time_wait_overflows(server: Any) -> None:
    server.counters(TcpExtTCPTimeWaitOverflow=40)


@fault("time-wait", WARN, "20,000 of 28,232 ports", "net.ipv4.tcp_tw_reuse=1")
def ports_are_held(server: Any) -> None:
    server.set(time_waits=(TimeWait("198.51.100.9", 5432, 20_000),))


@fault("local-ports", WARN, "ports 32768 to 33767", "ip_local_port_range=1024 65535")
def few_ports(server: Any) -> None:
    server.sysctl(net__ipv4__ip_local_port_range="32768 33767")


@fault("local-ports", BAD, "at most 9 to one peer", "ip_local_port_range=1024 65535")
def ports_are_used_up(server: Any, make_socket: Any) -> None:
    server.sysctl(net__ipv4__ip_local_port_range="32768 32777")
    server.sockets(*(make_socket(20 + n, local_port=32768 + n, remote_port=443) for n in range(9)))


@fault("orphans", WARN, "200,000 of 262,144 orphans", "tcp_fin_timeout=15")
def many_orphans(server: Any) -> None:
    server.set(sockstat={**server.after.sockstat, "TCP.orphan": 200_000})


# The way out.


def qdisc(server: Any, kind: str, drops: int, waiting: int = 0) -> None:
    def one(times: int) -> Qdisc:
        return Qdisc(2, kind, 0x10000, 0xFFFFFFFF, 0, 1000 * times, drops * times, 0, 0, 0, waiting)

    server.set(qdiscs=(one(1),)).later(qdiscs=(one(2),))


@fault("qdisc-drops", BAD, "200 packets dropped in 10.0 s (20/s) by tbf", "tc -s qdisc")
def rate_limit_drops(server: Any) -> None:
    qdisc(server, "tbf", 200)


@fault("qdisc-drops", INFO, "by fq_codel")
def codel_signals(server: Any) -> None:
    qdisc(server, "fq_codel", 5)


@fault("qdisc-backlog", WARN, "500 packets stand in pfifo_fast", "tc qdisc replace")
def queue_before_the_device(server: Any) -> None:
    qdisc(server, "pfifo_fast", 0, waiting=500)


@fault("qdisc-choice", INFO, "before 100 Mbit/s", "root fq_codel")
def bufferbloat(server: Any) -> None:
    server.link(qdisc="pfifo_fast").device(speed=100)


@fault("bql-stall", WARN, "3 stalls")
def stalls(server: Any) -> None:
    (first, *rest) = server.after.transmit_queues
    server.set(transmit_queues=(dataclasses.replace(first, stalls=3), *rest))


@fault("tx-timeouts", BAD, "1 timeouts", "dmesg")
def device_hung(server: Any) -> None:
    (first, *rest) = server.after.transmit_queues
    server.later(transmit_queues=(dataclasses.replace(first, timeouts=1), *rest))


@fault("default-qdisc", INFO, "pfifo_fast", "default_qdisc=fq_codel")
def plain_default(server: Any) -> None:
    server.sysctl(net__core__default_qdisc="pfifo_fast")


# Interrupts and nodes.


@fault("irq-one-cpu", BAD, "100% of 40,000 interrupts", "echo 1 > /proc/irq/61/smp_affinity_list")
def all_queues_on_one_cpu(server: Any) -> None:
    server.irqs(lambda _: 0)


@fault("irq-isolated", WARN, "8 interrupts go to isolated CPUs", "echo 0-1,4-7 > /proc/irq/60")
def isolated_cpus_are_interrupted(server: Any) -> None:
    server.cpus(isolated=(2, 3)).irqs(lambda at: 2 + at % 2)


@fault("irqbalance", WARN, "irqbalance[55] runs", "systemctl stop irqbalance")
def irqbalance_moves_pinned_ones(server: Any) -> None:
    server.set(services={"irqbalance": 55})


@fault("irqbalance", WARN, "all 8 interrupts go to CPU 0", "systemctl start irqbalance")
def nobody_balances(server: Any) -> None:
    server.irqs(lambda _: 0)


@fault("numa-irqs", WARN, "8 of 8 interrupts go to other nodes than 0", "echo 0 > /proc/irq/60")
def interrupts_on_the_far_node(server: Any) -> None:
    server.irqs(lambda at: 4 + at % 4)


@fault("numa-programs", WARN, "nginx[812] may only run on nodes without", "taskset -apc 0-3 812")
def program_on_the_far_node(server: Any) -> None:
    server.thread(share=0.9, allowed=(5,), cpu=5)


@fault("thread-migrations", INFO, "nginx[812] 100/s", "taskset -pc 0 812")
def thread_is_moved_about(server: Any) -> None:
    server.thread(share=0.5, migrations=1000)


# CPUs.


@fault("governor", WARN, "powersave on 8 of 8 CPUs", "scaling_governor", Goal.LATENCY)
def cpus_save_power(server: Any) -> None:
    server.each_cpu(governor="powersave")


@fault("governor", INFO, "power on 8 of 8", "energy_performance_preference")
def cpus_prefer_power(server: Any) -> None:
    server.each_cpu(energy_preference="power")


@fault("c-states", WARN, "C6 170 us", "pm_qos_resume_latency_us", Goal.LATENCY)
def cpus_sleep_deeply(server: Any) -> None:
    server.each_cpu(idle_states=(IdleState("C6", 170, False),))


@fault("smt", WARN, "its sibling 1 is 80% busy")
def sibling_is_busy(server: Any) -> None:
    cpus = server.after.cpus
    server.cpus(
        smt_active=True,
        cpus=tuple(dataclasses.replace(one, siblings=(0, 1)) for one in cpus.cpus),
    )
    server.thread(share=1.0, cpu=0).times(1, user=0.8)


@fault("clocksource", WARN, "hpet", "current_clocksource")
def slow_clock(server: Any) -> None:
    server.cpus(clocksource="hpet")


@fault("isolation", INFO, "polling threads on CPU 3", "", Goal.LATENCY)
def polls_without_isolation(server: Any) -> None:
    server.thread(share=1.0, allowed=(3,), cpu=3)


@fault("mitigations", INFO, "mitigations=off")
def mitigations_are_off(server: Any) -> None:
    server.set(kernel=Kernel("6.18", "quiet mitigations=off", {}, True))


@fault("background-timers", INFO, "kernel.nmi_watchdog 1", "nmi_watchdog=0", Goal.LATENCY)
def watchdog_runs(server: Any) -> None:
    server.sysctl(kernel__nmi_watchdog=1)


@fault("real-time-throttle", BAD, "poll with real-time priority", "sched_rt_runtime_us=950000")
def real_time_without_throttle(server: Any) -> None:
    server.thread(share=1.0, policy="fifo").sysctl(kernel__sched_rt_runtime_us=-1)


@fault("steal", BAD, "20.0% of the CPUs' time was stolen")
def time_is_stolen(server: Any) -> None:
    for cpu in range(8):
        server.times(cpu, steal=0.2)


@fault("pressure", WARN, "memory 50%")
def memory_is_waited_for(server: Any) -> None:
    server.later(pressure={**server.after.pressure, "memory": Pressure(50.0, 5_000_000, 0.0)})


@fault("boost", WARN, "boost is off", "echo 0 > /sys/devices/system/cpu/intel", Goal.THROUGHPUT)
def no_boost(server: Any) -> None:
    server.cpus(boost=False)


# Memory.


@fault("hugepages", WARN, "0 of 0 pages", "nr_hugepages", Goal.THROUGHPUT)
def no_hugepages(server: Any) -> None:
    server.memory(hugepages=(Hugepages(-1, 2 << 20, 0, 0),))


@fault("hugepages", WARN, "a channel runs without", "echo 32 >")
def a_channel_without_hugepages(server: Any) -> None:
    channel(server)
    server.memory(hugepages=(Hugepages(-1, 2 << 20, 0, 0),))


@fault("hugepages-node", WARN, "hugepages on node [1], the card on node [0]", "node0/hugepages")
def hugepages_on_the_far_node(server: Any) -> None:
    server.memory(
        hugepages=(Hugepages(-1, 2 << 20, 64, 64), Hugepages(1, 2 << 20, 64, 64)),
    )


@fault("transparent-hugepages", WARN, "always made", "echo madvise", Goal.LATENCY)
def pages_are_joined(server: Any) -> None:
    server.memory(transparent_hugepages="always")


@fault("swap", INFO, "3,072 of 4,096 MiB", "vm.swappiness=10")
def swapped_out(server: Any) -> None:
    server.memory(swap_free=1 << 30)


@fault("locked-memory", INFO, "64 KiB may be locked", "ulimit -l")
def little_may_be_locked(server: Any) -> None:
    server.set(privileges=Privileges(1000, (), 65_536, 1024))


@fault("open-files", WARN, "nginx[812] has 1,000 of 1,024 files open", "prlimit --pid 812")
def files_run_out(server: Any) -> None:
    (process,) = server.after.processes
    server.set(processes=(dataclasses.replace(process, files=1000, files_limit=1024),))


# The platform.


@fault("capabilities", INFO, "CAP_NET_ADMIN")
def an_ordinary_user(server: Any) -> None:
    server.set(privileges=Privileges(1000, (), None, 1024))


@fault("blind-spots", INFO, "not read: sockets")
def sockets_cannot_be_read(server: Any) -> None:
    server.set(sockets=NotAvailable("permission denied", "root"))


@fault("kernel-options", INFO, "CONFIG_XDP_SOCKETS: AF_XDP ports")
def kernel_without_af_xdp(server: Any) -> None:
    server.set(kernel=Kernel("6.18", "", {"CONFIG_XDP_SOCKETS": "n"}, True))


@fault("virtual-machine", INFO, "hypervisor QEMU")
def in_a_virtual_machine(server: Any) -> None:
    server.set(platform=Platform("QEMU", "Standard PC"))


# Millrace itself.


@fault("own-pool", WARN, "100 of 4,096 frames are free")
def frames_run_out(server: Any) -> None:
    channel(server, frames_free=100)


@fault("own-pool", BAD, "70 times there was none")
def frames_ran_out(server: Any) -> None:
    channel(server, frames_exhausted=70)


@fault("own-drops", BAD, "rx_ring_full 40")
def port_drops(server: Any) -> None:
    channel(server, drop_rx_ring_full=40, benign_ethernet_not_ours=9000)


@fault("own-batches", WARN, "63.0 packets a burst")
def batches_are_full(server: Any) -> None:
    channel(server, rx_bursts=1000, rx_packets=63_000)


@fault("own-busy", WARN, "busy for 99% of the window")
def no_time_left(server: Any) -> None:
    channel(server, turns=100_000, idle_nanoseconds=100_000_000)


@fault("own-transmit", WARN, "5,000 turns with packets left")
def no_room_to_send(server: Any) -> None:
    channel(server, turns=10_000, transmit_stalls=5000)


@fault("own-connections", WARN, "990 of 1,000 connections")
def table_is_full(server: Any) -> None:
    channel(server, connections=990)


# The tests.


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault(fault: Fault, server: Any, make_socket: Any) -> None:
    healthy = worst(server.examine(fault.check))
    assert healthy.verdict not in (BAD, WARN)
    wanted = inspect.signature(fault.spoil).parameters
    fault.spoil(*([server, make_socket][: len(wanted)]))
    found = server.examine(fault.check, goal=fault.goal)
    assert all("a defect of this check" not in one.evidence for one in found)
    (loud, *_) = [one for one in found if one.verdict is fault.verdict] or [worst(found)]
    assert (loud.verdict, loud.check) == (fault.verdict, fault.check), loud.evidence
    said = [one.evidence for one in found if one.verdict is fault.verdict]
    assert any(part in text for part in fault.says.split("|") for text in said), said
    assert worst(found).verdict is fault.verdict
    assert loud.why
    if fault.shell:
        assert any(fault.shell in one.shell for one in found), [one.shell for one in found]
    row = loud.row()
    assert set(row) == {
        "check", "layer", "scope", "verdict", "evidence", "why", "remedy", "shell", "risk"
    }  # fmt: skip
    assert all(isinstance(value, str) for value in row.values())


def test_every_check_has_a_fault() -> None:
    assert set(CHECKS) - {fault.check for fault in FAULTS} == set()
    assert len(CHECKS) >= 60


@pytest.mark.parametrize("goal", list(Goal))
def test_a_healthy_machine(server: Any, goal: Goal) -> None:
    found = server.examine(goal=goal)
    assert {one.check for one in found} == set(CHECKS)
    loud = {one.check for one in found if one.verdict in (BAD, WARN)}
    # What is well in general may be wrong for latency.
    allowed = {"coalescing", "busy-poll", "c-states"} if goal is Goal.LATENCY else set()
    assert loud == allowed


def test_every_check_explains_itself() -> None:
    for check in CHECKS.values():
        assert check.explanation.endswith((".", ")")), check.id
        assert check.why.endswith((".", ")")), check.id
        assert len(check.why) <= 210, check.id
        assert check.source, check.id
        assert not any(word in check.explanation for word in ("TODO", "XXX"))


def test_one_snapshot_skips_what_needs_two(server: Any) -> None:
    from millrace.host.doctor import examine

    found = examine([server.after]).findings
    assert all("a defect of this check" not in one.evidence for one in found)
    skipped = {one.check: one.evidence for one in found if one.verdict is SKIP}
    assert "it takes two snapshots" in skipped["softnet-drops"]
    assert {one.verdict for one in found if one.check == "tcp-features"} == {OK}


def test_a_namespace_is_not_blamed_for_its_machine(server: Any) -> None:
    server.softnet(1, dropped=3000)
    server.origin(initial_namespace=False)
    (inside,) = server.examine("softnet-drops")
    assert inside.verdict is INFO
    assert "the whole machine's" in inside.evidence
    (outside,) = server.examine("softnet-drops", machine=True)
    assert outside.verdict is BAD


def test_one_interface_alone(server: Any) -> None:
    lo, eth0 = server.after.links
    server.set(links=(lo, eth0, dataclasses.replace(eth0, name="eth1", index=3, carrier=False)))
    assert worst(server.examine("link-down")).verdict is BAD
    assert worst(server.examine("link-down", interface="eth0")).verdict is OK
    server.link("eth1", flags=0x1002)
    assert worst(server.examine("link-down")).verdict is OK
    (down,) = server.examine("link-down", interface="eth1")
    assert (down.verdict, down.shell) == (BAD, "ip link set dev eth1 up")
    with pytest.raises(ValueError, match="no interface 'eth9'; there is lo, eth0, eth1"):
        server.examine("link-down", interface="eth9")


@pytest.mark.parametrize("part", sorted(set(Snapshot.__slots__) - {"origin"}))
def test_a_missing_part_is_a_reason(server: Any, part: str) -> None:
    server.set(**{part: NotAvailable("taken away")})
    found = server.examine()
    assert {one.check for one in found} == set(CHECKS)
    assert all("a defect of this check" not in one.evidence for one in found)
    # Nothing else gets loud because of it.
    assert [one.check for one in found if one.verdict in (BAD, WARN)] == []


def _mutate(value: Any, dice: random.Random, depth: int = 0) -> Any:
    """The same JSON with some of it taken away or made absurd."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if dice.random() > 0.02}
        return {key: _mutate(item, dice, depth + 1) for key, item in kept.items()}
    if isinstance(value, list):
        kept = [item for item in value if dice.random() > 0.05]
        return [_mutate(item, dice, depth + 1) for item in kept]
    if dice.random() < 0.05:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return dice.choice([0, -1, 1, 1 << 31, (1 << 64) - 1, -(1 << 63)])
        if isinstance(value, float):
            return dice.choice([0.0, -1.0, 1e18])
        if isinstance(value, str):
            return dice.choice(["", "0", "-1", "\x1b[31m", "a b c", "<script>", "9" * 300, "'; rm"])
    return value


@pytest.mark.parametrize("seed", range(60))
def test_absurd_recordings_break_nothing(server: Any, seed: int) -> None:
    from millrace.host import picture_svg, picture_text
    from millrace.host.doctor import examine
    from millrace.host.page import page
    from millrace.host.path import picture

    dice = random.Random(seed)
    snapshots = []
    for snapshot in (server.before, server.after):
        written = codec.to_json(snapshot)
        parts = {name: part for name, part in written.items() if name != "origin"}
        mutated = {name: _mutate(part, dice) for name, part in parts.items()}
        kept = {}
        for name, part in mutated.items():
            try:
                codec.from_json(Snapshot, {"origin": written["origin"], name: part})
            except codec.BadData:
                continue
            kept[name] = part
        snapshots.append(codec.from_json(Snapshot, {"origin": written["origin"], **kept}))
    found = examine(snapshots, goal=dice.choice(list(Goal)))
    assert {one.check for one in found.findings} == set(CHECKS)
    for one in found.findings:
        one.row()
    drawn = picture(found.context, found.findings)
    picture_text.draw(drawn)
    for text in (picture_svg.draw(drawn), page(found)):
        assert "<script" not in text
        assert "\x1b" not in text
