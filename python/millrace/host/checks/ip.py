"""IP, ICMP, neighbours, routes, connection tracking: what the network layer threw away and why."""

from __future__ import annotations

import ipaddress

from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    device,
    info,
    ok,
    warn,
)
from millrace.host.finding import HOST, NAMESPACE, Layer, Scope
from millrace.host.links import by_index
from millrace.host.unavailable import Unavailable, known

_SNMP = "Documentation/networking/snmp_counter.rst"
_MEMORY = "about 300 bytes for each connection"


@check(
    "rp-filter-drops",
    Layer.PROTOCOL,
    46,
    NAMESPACE,
    why="Packets came in by an interface that answers would not leave by, so the reverse path "
    "filter threw them away. With two uplinks that is often a mistake.",
    source=_SNMP + "; Documentation/networking/ip-sysctl.rst, rp_filter; RFC 3704",
)
def rp_filter_drops(context: Context) -> Outcomes:
    """Packets dropped by the reverse path filter (TcpExtIPReversePathFilter) in the window."""
    dropped = context.count("TcpExtIPReversePathFilter")
    if not dropped:
        yield ok(context.none("packet dropped by rp_filter"))
        return
    steps = []
    if context.number("net.ipv4.conf.all.rp_filter") == 1:
        steps.append(context.set("net.ipv4.conf.all.rp_filter", 2))
    for link in context.links:
        key = f"net/ipv4/conf/{link.name}/rp_filter"
        try:
            strict = context.number(key) == 1
        except Unavailable:
            continue
        if strict:
            steps.append(context.set(key, 2))
    yield bad(
        context.amount(dropped, "packets dropped"),
        steps=steps,
        advice=""
        if steps
        else "no route at all leads back to their sources: add one, or find out who forges them",
        risk="loose filtering (RFC 3704) takes packets from any interface that some route leads "
        "back through",
    )


@check(
    "rp-filter",
    Layer.PROTOCOL,
    46,
    NAMESPACE,
    why="Strict filtering and several ways to the same place do not go together: what comes by "
    "the other way is dropped.",
    source="Documentation/networking/ip-sysctl.rst, rp_filter; RFC 3704",
)
def rp_filter(context: Context) -> Outcomes:
    """Strict rp_filter on interfaces of which several lead to the same destination."""
    links = by_index(context.links)
    by_destination: dict[str, set[int]] = {}
    for route in known(context.now.routes):
        if route.family == 4 and route.index in links:
            by_destination.setdefault(route.destination, set()).add(route.index)
    everywhere = context.number("net.ipv4.conf.all.rp_filter")
    strict = []
    for destination, indices in sorted(by_destination.items()):
        if len(indices) < 2:
            continue
        for index in indices:
            own = context.number(f"net/ipv4/conf/{links[index].name}/rp_filter")
            # The kernel takes the larger of the two.
            if max(own, everywhere) == 1:
                strict.append((links[index].name, destination))
    if strict:
        told = ", ".join(f"{name} to {destination}" for name, destination in strict[:4])
        yield warn(
            f"strict rp_filter where several interfaces lead to one place: {told}",
            steps=[
                context.set(f"net/ipv4/conf/{name}/rp_filter", 2) for name in {n for n, _ in strict}
            ],
            risk="loose filtering takes packets from any interface that leads back",
        )
    else:
        yield ok("no strict filter where there are several ways")


@check(
    "arp-flux",
    Layer.PROTOCOL,
    46,
    NAMESPACE,
    why="Any interface answers for any address of the host, so neighbours learn now one, now the "
    "other, and packets come in where nobody expects them.",
    source="Documentation/networking/ip-sysctl.rst, arp_ignore, arp_announce",
)
def arp_flux(context: Context) -> Outcomes:
    """Two interfaces with addresses of one network, and arp_ignore and arp_filter of 0."""
    links = by_index(context.links)
    networks: dict[str, set[str]] = {}
    for address in known(context.now.addresses):
        if address.family == 4 and address.index in links and address.prefix < 32:
            own = ipaddress.ip_interface(f"{address.address}/{address.prefix}")
            networks.setdefault(str(own.network), set()).add(links[address.index].name)
    shared = {network: names for network, names in networks.items() if len(names) > 1}
    guarded = context.number("net.ipv4.conf.all.arp_ignore") or context.number(
        "net.ipv4.conf.all.arp_filter"
    )
    if shared and not guarded:
        network, names = next(iter(sorted(shared.items())))
        yield warn(
            f"{', '.join(sorted(names))} all have addresses of {network}",
            steps=[
                context.set("net.ipv4.conf.all.arp_ignore", 1),
                context.set("net.ipv4.conf.all.arp_announce", 2),
            ],
            risk="an address answers only on its own interface from then on",
        )
    else:
        yield ok("each network is on one interface" if not shared else "arp_ignore guards it")


@check(
    "duplicate-address",
    Layer.PROTOCOL,
    0,
    Scope("device"),
    why="Another host has the address, so the kernel does not use it. What is bound to it gets "
    "nothing.",
    source="RFC 4862 section 5.4; IFA_F_DADFAILED of linux/if_addr.h",
)
def duplicate_address(context: Context) -> Outcomes:
    """IPv6 addresses for which duplicate address detection failed."""
    links = by_index(context.links)
    found = False
    for address in known(context.now.addresses):
        if address.is_duplicate and address.index in links:
            found = True
            yield bad(
                f"{address.address} of {links[address.index].name} is somebody else's too",
                device(links[address.index]),
                advice="give one of the two another address",
            )
    if not found:
        yield ok("no address is known to be used twice", NAMESPACE)


@check(
    "no-route",
    Layer.PROTOCOL,
    0,
    NAMESPACE,
    why="Packets had nowhere to go: programs get errors, and what is forwarded is lost.",
    source=_SNMP + ", IpOutNoRoutes and IpExtInNoRoutes",
)
def no_route(context: Context) -> Outcomes:
    """Packets without a route in the window, own (IpOutNoRoutes) and others' (IpExtInNoRoutes)."""
    lost = context.count("IpOutNoRoutes", "IpExtInNoRoutes", "Ip6OutNoRoutes", "Ip6InNoRoutes")
    if not lost:
        yield ok(context.none("packet without a route"))
        return
    routes = known(context.now.routes)
    default = any(route.destination == "default" for route in routes)
    yield warn(
        context.amount(lost, "packets without a route"),
        advice="add the route that is missing" if default else "there is no default route; add one",
        command="ip route get ADDRESS",
    )


@check(
    "ip-header-errors",
    Layer.PROTOCOL,
    0,
    NAMESPACE,
    why="Packets arrived that IP cannot use: wrong headers or checksums, or their time to live "
    "ran out, as in a loop of routes.",
    source=_SNMP + ", IpInHdrErrors, IpExtInCsumErrors, IpExtInTruncatedPkts",
)
def ip_header_errors(context: Context) -> Outcomes:
    """Packets dropped for their IP header, among them those whose TTL ran out here."""
    lost = context.count("IpInHdrErrors", "Ip6InHdrErrors", "IpExtInTruncatedPkts")
    if not lost:
        yield ok(context.none("packet with a header that IP refuses"))
        return
    # Each packet whose TTL ran out was answered, as far as the rate limit let it.
    loops = context.count("IcmpOutTimeExcds", "Icmp6OutTimeExcds")
    yield warn(
        context.amount(lost, "packets refused")
        + (f"; {loops:,} times the time to live was over" if loops else ""),
        advice="look for routes that lead in a circle (traceroute)"
        if loops
        else "find the sender; a device that changes headers may get their checksum wrong",
    )


@check(
    "ip-wrong-address",
    Layer.PROTOCOL,
    0,
    NAMESPACE,
    why="Packets came for addresses that this host does not have and does not forward. Somebody's "
    "route or neighbour entry is wrong, or forwarding should be on.",
    source=_SNMP + ", IpInAddrErrors",
)
def ip_wrong_address(context: Context) -> Outcomes:
    """Packets for other hosts (IpInAddrErrors, Ip6InAddrErrors) in the window."""
    lost = context.count("IpInAddrErrors", "Ip6InAddrErrors")
    if not lost:
        yield ok(context.none("packet for an address of others"))
        return
    forwards = context.number("net.ipv4.ip_forward")
    yield warn(
        context.amount(lost, "packets for addresses of others"),
        steps=[] if forwards else [context.set("net.ipv4.ip_forward", 1)],
        advice="if this host is to forward them; otherwise mend the sender's route"
        if not forwards
        else "their source or destination is one that may not be forwarded",
        risk="a host that forwards joins its networks: filter what may pass",
    )


@check(
    "reassembly",
    Layer.PROTOCOL,
    0,
    NAMESPACE,
    why="Fragments whose rest did not come, or for which there was no memory: each costs a whole "
    "datagram.",
    source=_SNMP + ", IpReasmFails; Documentation/networking/ip-sysctl.rst, ipfrag_high_thresh",
)
def reassembly(context: Context) -> Outcomes:
    """Datagrams that could not be put together (IpReasmFails, Ip6ReasmFails) in the window."""
    failed = context.count("IpReasmFails", "Ip6ReasmFails")
    if not failed:
        yield ok(context.none("datagram left in pieces"))
        return
    timeouts = context.count("IpReasmTimeout", "Ip6ReasmTimeout")
    memory = known(context.now.sockstat).get("FRAG.memory", 0)
    most = context.number("net.ipv4.ipfrag_high_thresh")
    evidence = context.amount(failed, "datagrams left in pieces") + f", {timeouts:,} by timeout"
    if memory > most / 2 or timeouts < failed:
        yield warn(
            f"{evidence}; fragments hold {memory:,} of {most:,} bytes",
            steps=[context.set("net.ipv4.ipfrag_high_thresh", max(most * 2, 4 << 20))],
            risk="an attacker's fragments can hold as much memory",
        )
    else:
        yield warn(
            evidence,
            advice="fragments are lost on the way: send datagrams that fit the path's MTU",
        )


@check(
    "pmtu-failures",
    Layer.PROTOCOL,
    39,
    NAMESPACE,
    why="Packets were too large for the way and could not be cut. Where the answers that say so "
    "are filtered, connections hang after the handshake.",
    source="RFC 1191, RFC 4821; Documentation/networking/ip-sysctl.rst, tcp_mtu_probing",
)
def pmtu_failures(context: Context) -> Outcomes:
    """Packets that did not fit (IpFragFails, Ip6FragFails), and probes of TCP's that failed."""
    failed = context.count("IpFragFails", "Ip6FragFails", "Ip6InTooBigErrors")
    probes = context.count("TcpExtTCPMTUPFail")
    if failed or probes:
        told = context.amount(failed, "packets too large for the way")
        probing = context.number("net.ipv4.tcp_mtu_probing")
        yield warn(
            f"{told}, {probes:,} failed probes",
            steps=[] if probing else [context.set("net.ipv4.tcp_mtu_probing", 1)],
            advice="let ICMP 'fragmentation needed' through every filter on the way",
            risk="after a loss that looks like a black hole TCP tries smaller segments",
        )
    else:
        yield ok(context.none("packet too large for the way"))


@check(
    "neighbour-table",
    Layer.PROTOCOL,
    37,
    HOST,
    why="The table of neighbours is full: new ones cannot be talked to, although they are there.",
    source="arp(7), gc_thresh; net/core/neighbour.c",
)
def neighbour_table(context: Context) -> Outcomes:
    """The neighbour tables refused entries in the window, or hold more than gc_thresh2."""
    for prefix, family in (("arp", "ipv4"), ("nd", "ipv6")):
        counters = known(context.now.neighbour_counters)
        if f"{prefix}.entries" not in counters:
            continue
        entries = counters[f"{prefix}.entries"]
        refused = 0
        if context.window is not None:
            refused = context.rates.neighbour_counters.get(f"{prefix}.table_fulls", 0)
        try:
            soft = context.number(f"net.{family}.neigh.default.gc_thresh2")
            hard = context.number(f"net.{family}.neigh.default.gc_thresh3")
        except Unavailable:
            soft, hard = 512, 1024  # net/ipv4/arp.c, net/ipv6/ndisc.c
        told = f"{entries:,} entries of {hard:,} in the {prefix} table"
        steps = [
            context.set(f"net.{family}.neigh.default.gc_thresh3", max(hard * 4, 4096)),
            context.set(f"net.{family}.neigh.default.gc_thresh2", max(soft * 4, 2048)),
        ]
        if refused:
            yield bad(
                f"{told}; {context.amount(refused, 'new ones refused')}",
                steps=steps,
                risk="memory for the entries",
            )
        elif entries > soft:
            yield warn(told, steps=steps, risk="memory for the entries")
        else:
            yield ok(told)


@check(
    "neighbour-failed",
    Layer.PROTOCOL,
    37,
    NAMESPACE,
    why="Hosts on the link do not answer when asked for their hardware address; what is sent to "
    "them waits, and is then dropped.",
    source="RFC 826, RFC 4861 section 7.3.3; ip-neighbour(8)",
)
def neighbour_failed(context: Context) -> Outcomes:
    """Neighbours that do not answer: a gateway is bad, several others are a warning."""
    links = by_index(context.links)
    routes = known(context.now.routes)
    gateways = {(route.gateway, route.index) for route in routes if route.gateway}
    failed = [
        one
        for one in known(context.now.neighbours)
        if one.state in ("failed", "incomplete") and one.index in links
    ]
    dead = [one for one in failed if (one.address, one.index) in gateways]
    if dead:
        names = ", ".join(f"{one.address} on {links[one.index].name}" for one in dead[:4])
        yield bad(f"a gateway does not answer: {names}", advice="look at the gateway and the link")
    elif len(failed) >= 3:
        names = ", ".join(one.address for one in failed[:4])
        yield warn(
            f"{len(failed)} neighbours do not answer: {names}",
            advice="find out who sends to them: a wrong route or netmask, or a scan",
        )
    else:
        yield ok(f"{len(failed)} neighbours do not answer")


@check(
    "conntrack-table",
    Layer.PROTOCOL,
    38,
    NAMESPACE,
    why="When the table of connections is full, the first packet of every new one is dropped.",
    source="Documentation/networking/nf_conntrack-sysctl.rst",
)
def conntrack_table(context: Context) -> Outcomes:
    """nf_conntrack_count over 80 % of nf_conntrack_max, or drops by connection tracking."""
    count = context.number("net.netfilter.nf_conntrack_count")
    most = context.number("net.netfilter.nf_conntrack_max")
    lost = 0
    if context.window is not None:
        counted = context.rates.conntrack
        lost = sum(counted.get(name, 0) for name in ("drop", "early_drop", "insert_failed"))
    told = f"{count:,} of {most:,} connections"
    steps = [context.set("net.netfilter.nf_conntrack_max", most * 2)]
    if lost:
        yield bad(f"{told}; {context.amount(lost, 'packets dropped')}", steps=steps, risk=_MEMORY)
    elif count > 0.8 * most:
        yield warn(told, steps=steps, risk=_MEMORY)
    else:
        yield ok(told)


@check(
    "icmp-errors",
    Layer.PROTOCOL,
    0,
    NAMESPACE,
    why="This host answers many packets with errors: somebody scans it, or sends to a service "
    "that is gone.",
    source=_SNMP + ", IcmpOutDestUnreachs; Documentation/networking/ip-sysctl.rst, icmp_ratelimit",
)
def icmp_errors(context: Context) -> Outcomes:
    """ICMP errors sent in the window, above ten a second."""
    sent = context.count("IcmpOutDestUnreachs", "IcmpOutTimeExcds", "Icmp6OutDestUnreachs")
    if context.per_second(sent) > 10 and sent > 20:
        yield info(
            context.amount(sent, "ICMP errors sent"),
            advice="see which ports or networks they ask for",
            command="tcpdump -c 20 -n 'icmp or icmp6'",
        )
    else:
        yield ok(context.amount(sent, "ICMP errors sent"))


@check(
    "kernel-resets",
    Layer.MILLRACE,
    63,
    NAMESPACE,
    why="The kernel answers for the address that Millrace's stack has as well: it resets the "
    "connections it does not know.",
    source="RFC 9293 section 3.10.7.1; Documentation/networking/af_xdp.rst",
)
def kernel_resets(context: Context) -> Outcomes:
    """The kernel sends resets while a Millrace channel shares one of its addresses."""
    own = known(context.now.own)
    resets = context.count("TcpOutRsts")
    if own and resets > 20 and context.per_second(resets) > 5:
        yield warn(
            context.amount(resets, "resets sent by the kernel"),
            advice="give the channel an address that Linux does not have, or steer its ports to it "
            "with XDP",
        )
    else:
        yield ok(context.amount(resets, "resets sent by the kernel"))
