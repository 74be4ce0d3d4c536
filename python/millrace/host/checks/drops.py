"""The reasons the kernel itself gives for dropping packets."""

from __future__ import annotations

from millrace.host.checks.table import Context, Outcomes, bad, check, info, ok, warn
from millrace.host.finding import NAMESPACE, Layer
from millrace.host.unavailable import known

#: What to do about a reason: a check that knows more, or advice.
REMEDIES = {
    "SOCKET_RCVBUFF": "see udp-receive-buffer",
    "SOCKET_BACKLOG": "see tcp-backlog-drops",
    "SOCKET_FILTER": "a socket's own filter; ask its program",
    "CPU_BACKLOG": "see softnet-drops",
    "TCP_LISTEN_OVERFLOW": "see accept-overflow",
    "QDISC_DROP": "see qdisc-drops",
    "FULL_RING": "the reader of a TUN or veth ring is too slow",
    "IP_RPFILTER": "see rp-filter-drops",
    "NETFILTER_DROP": "a rule of nftables: nft list ruleset",
    "NO_SOCKET": "see udp-no-port and tcp-refused",
    "PROTO_MEM": "see tcp-pool",
    "NEIGH_FAILED": "see neighbour-failed",
    "NEIGH_QUEUEFULL": "see neighbour-failed",
    "NEIGH_CREATEFAIL": "see neighbour-table",
    "PKT_TOO_BIG": "see mtu-mismatch and pmtu-failures",
    "TCP_CSUM": "see checksum-errors",
    "UDP_CSUM": "see checksum-errors",
    "IP_CSUM": "see checksum-errors",
    "IP_INHDR": "see ip-header-errors",
    "IP_OUTNOROUTES": "see no-route",
    "IP_INNOROUTES": "see no-route",
    "NOMEM": "the kernel found no memory: see pressure",
    "UNHANDLED_PROTO": "see stack-drops",
    "TC_INGRESS": "a filter of tc or BPF: tc filter show dev IFACE ingress",
    "XDP": "an XDP program",
}


@check(
    "drop-reasons",
    Layer.PROTOCOL,
    7,
    NAMESPACE,
    why="Each packet that the kernel frees unread has a reason, and these are the reasons of the "
    "window.",
    source="include/net/dropreason-core.h; the tracepoint skb:kfree_skb",
)
def drop_reasons(context: Context) -> Outcomes:
    """Packets dropped by reason, without those that nobody misses.

    From 10 a second a reason is a warning, from 1,000 a second bad. `millrace drops` shows where,
    and which flows.
    """
    counted = known(context.now.drops)
    before = known(context.rates.before.drops)
    found = {
        reason: count - before.get(reason, 0)
        for reason, count in counted.items()
        if count > before.get(reason, 0)
    }
    for reason, count in sorted(found.items(), key=lambda pair: -pair[1])[:8]:
        rate = context.per_second(count)
        verdict = bad if rate >= 1000 else warn if rate >= 10 else info
        yield verdict(
            f"{reason}: {context.amount(count, 'packets dropped')}",
            advice=REMEDIES.get(reason, "see which flows: millrace drops"),
            command=f"millrace drops --reason {reason}",
        )
    if not found:
        yield ok(context.none("packet dropped for a reason that is a loss"))
