"""What the protocols counted, by the names that nstat(8) prints: "TcpExtListenDrops".

From /proc/net/snmp, /proc/net/netstat, /proc/net/snmp6, /proc/net/sockstat and /proc/net/stat. They
belong to one network namespace, except those of the neighbour tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from millrace.host.access import Access

_MAX_COUNTERS = 4096


def read_counters(access: Access) -> Mapping[str, int]:
    """The counters of IP, ICMP, UDP and TCP."""
    found: dict[str, int] = {}
    for path in ("/proc/net/snmp", "/proc/net/netstat"):
        found |= parse_pairs(access.files.read(path))
    for line in _lines(access, "/proc/net/snmp6"):
        words = line.split()
        if len(words) == 2:
            found[words[0]] = int(words[1])
    return found


def parse_pairs(text: str) -> dict[str, int]:
    """Counters in pairs of lines: names, then values, both after a prefix."""
    found: dict[str, int] = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        prefix, _, rest = names.partition(":")
        got, _, numbers = values.partition(":")
        if prefix != got:
            break
        for name, number in zip(rest.split(), numbers.split(), strict=False):
            if len(found) < _MAX_COUNTERS:
                found[prefix + name] = int(number)
    return found


def read_sockstat(access: Access) -> Mapping[str, int]:
    """How many sockets there are and what they hold: {"TCP.inuse": 3, "TCP.mem": 12, ...}.

    Memory is in pages, that of fragments in bytes.
    """
    found: dict[str, int] = {}
    for path in ("/proc/net/sockstat", "/proc/net/sockstat6"):
        for line in _lines(access, path):
            name, _, rest = line.partition(":")
            words = rest.split()
            found |= {f"{name}.{key}": int(value) for key, value in _pairs(words)}
    return found


def read_neighbour_counters(access: Access) -> Mapping[str, int]:
    """Of the neighbour tables: {"arp.table_fulls": 0, "nd.entries": 3, ...}."""
    found: dict[str, int] = {}
    for prefix, table in (("arp", "arp_cache"), ("nd", "ndisc_cache")):
        found |= _sums(_lines(access, f"/proc/net/stat/{table}"), prefix)
    return found


def read_conntrack_counters(access: Access) -> Mapping[str, int]:
    """Of connection tracking: {"drop": 0, "early_drop": 0, "insert_failed": 0, ...}."""
    rows = access.files.read("/proc/net/stat/nf_conntrack").splitlines()
    return {name.removeprefix("."): value for name, value in _sums(rows, "").items()}


def _sums(lines: list[str], prefix: str) -> dict[str, int]:
    """Hexadecimal columns, a row for each CPU, added up; "entries" is the same in each row."""
    if not lines:
        return {}
    names = lines[0].split()
    totals = dict.fromkeys(names, 0)
    for line in lines[1:]:
        for name, word in zip(names, line.split(), strict=False):
            value = int(word, 16)
            totals[name] = value if name == "entries" else totals[name] + value
    return {f"{prefix}.{name}": value for name, value in totals.items()}


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=False))


def _lines(access: Access, path: str) -> list[str]:
    try:
        return access.files.read(path).splitlines()
    except FileNotFoundError:  # built without IPv6, or without connection tracking
        return []
