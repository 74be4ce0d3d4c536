"""Counters of the protocols by nstat's names."""

from __future__ import annotations

from typing import Any

from millrace.host.access import Access
from millrace.host.counters import (
    parse_pairs,
    read_conntrack_counters,
    read_neighbour_counters,
    read_sockstat,
)


def test_pairs() -> None:
    text = "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 2\nIpExt: InOctets\nIpExt: 3\n"
    assert parse_pairs(text) == {
        "TcpExtListenOverflows": 1,
        "TcpExtListenDrops": 2,
        "IpExtInOctets": 3,
    }


def test_pairs_that_do_not_match_end_it() -> None:
    assert parse_pairs("Ip: a\nIp: 1\nTcp: b\nUdp: 2\n") == {"Ipa": 1}
    assert parse_pairs("Ip: a b c\nIp: 1") == {"Ipa": 1}
    assert parse_pairs("") == {}


def test_tables_are_summed_over_cpus(tree: Any) -> None:
    root = tree(
        {
            "/proc/net/stat/arp_cache": "entries  allocs\n00000006 00000010\n00000006 00000001\n",
            "/proc/net/stat/nf_conntrack": "entries drop\n00000002 00000003\n00000002 00000004\n",
            "/proc/net/sockstat": "sockets: used 9\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 5\n",
        }
    )
    with Access(root) as access:
        assert read_neighbour_counters(access) == {"arp.entries": 6, "arp.allocs": 17}
        assert read_conntrack_counters(access) == {"entries": 2, "drop": 7}
        assert read_sockstat(access)["TCP.tw"] == 3
        assert read_sockstat(access)["sockets.used"] == 9
