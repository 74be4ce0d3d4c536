"""What is wrong: checks of `millrace.host.checks.ip`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.links import Address, Neighbour, Route

from .own import channel
from .register import BAD, INFO, WARN, fault


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
