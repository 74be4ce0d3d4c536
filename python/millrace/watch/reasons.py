"""What each reason for a drop means, whether anybody misses the packet, and what helps.

The kernel's reasons are those of `enum skb_drop_reason` (include/net/dropreason-core.h, where each
has a sentence); numbers and names come from the running kernel, and only the words are here. A
reason that is not here is shown by its name, as a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: "loss": somebody wanted the packet; "benign": nobody misses it.
Kind = Literal["loss", "benign"]


@dataclass(frozen=True)
class Meaning:
    """What is known of a reason."""

    kind: Kind
    why: str
    #: What helps; empty where nothing is to be done.
    remedy: str = ""


UNKNOWN = Meaning("loss", "a reason that this millrace has no words for yet")

_MALFORMED = "find out who sends it: millrace drops -w FILE keeps the frames"
_STALE = "normal now and then; many of them mean that packets overtake each other on the way"
_AUTH = "compare the keys of both ends; ip tcp_metrics and the routing daemon's configuration"


def _loss(why: str, remedy: str = "") -> Meaning:
    return Meaning("loss", why, remedy)


def _benign(why: str, remedy: str = "") -> Meaning:
    return Meaning("benign", why, remedy)


#: By the names that the kernel has, without SKB_DROP_REASON_ or SKB_.
KERNEL: dict[str, Meaning] = {
    "NOT_DROPPED_YET": _benign("not dropped"),
    "CONSUMED": _benign("used up, not dropped"),
    "NOT_SPECIFIED": _loss(
        "the code that dropped it gives no reason",
        "the place tells more: look it up in the kernel's source",
    ),
    "NO_SOCKET": _loss(
        "nobody listens on that port",
        "start the server, or bind it to this address: ss -lntu shows who listens where",
    ),
    "SOCKET_CLOSE": _benign("the socket was closed with packets still in its queue"),
    "SOCKET_FILTER": _benign("the socket's own filter (SO_ATTACH_FILTER) does not want it"),
    "SOCKET_RCVBUFF": _loss(
        "the socket's receive buffer is full: its program reads too slowly",
        "find the socket with millrace top or ss -m; a faster reader, SO_RCVBUF and "
        "sysctl -w net.core.rmem_max=8388608 help against bursts only",
    ),
    "UNIX_DISCONNECT": _benign("a UNIX socket was disconnected"),
    "UNIX_SKIP_OOB": _benign("out-of-band data of a UNIX socket was skipped"),
    "PKT_TOO_SMALL": _loss("shorter than the headers that it must have", _MALFORMED),
    "TCP_CSUM": _loss(
        "its TCP checksum is wrong",
        "damaged on the way, or a checksum that nobody finished: "
        "ethtool -K IFACE tx off on the sender tells them apart",
    ),
    "UDP_CSUM": _loss(
        "its UDP checksum is wrong",
        "damaged on the way, or a checksum that nobody finished: "
        "ethtool -K IFACE tx off on the sender tells them apart",
    ),
    "NETFILTER_DROP": _loss(
        "a rule of netfilter drops it",
        "nft list ruleset (or iptables-save); nft monitor trace shows the rule",
    ),
    "OTHERHOST": _benign("for another host: seen because the interface is promiscuous"),
    "IP_CSUM": _loss("its IPv4 header checksum is wrong", _MALFORMED),
    "IP_INHDR": _loss("its IP header makes no sense", _MALFORMED),
    "IP_RPFILTER": _loss(
        "it came by an interface that answers to it would not leave by (reverse path filter)",
        "where routing is asymmetric on purpose: sysctl -w net.ipv4.conf.IFACE.rp_filter=2",
    ),
    "UNICAST_IN_L2_MULTICAST": _loss(
        "an IP packet for one host in a frame for many (RFC 1122 section 3.3.6)",
        "look for a load balancer that answers ARP with a multicast address",
    ),
    "XFRM_POLICY": _loss("an IPsec policy forbids it", "ip xfrm policy; ip -s xfrm state"),
    "IP_NOPROTO": _loss("nobody here speaks its IP protocol", "is a module missing, or a tunnel?"),
    "PROTO_MEM": _loss(
        "the protocol has used its memory (tcp_mem, udp_mem)",
        "cat /proc/net/sockstat; find who holds it (ss -m); sysctl net.ipv4.tcp_mem, udp_mem",
    ),
    "TCP_AUTH_HDR": _loss("both kinds of TCP authentication in one segment", _AUTH),
    "TCP_MD5NOTFOUND": _loss("a TCP-MD5 signature is missing", _AUTH),
    "TCP_MD5UNEXPECTED": _loss("a TCP-MD5 signature that nobody asked for", _AUTH),
    "TCP_MD5FAILURE": _loss("its TCP-MD5 signature is wrong", _AUTH),
    "TCP_AONOTFOUND": _loss("a TCP-AO signature is missing", _AUTH),
    "TCP_AOUNEXPECTED": _loss("a TCP-AO signature that nobody asked for", _AUTH),
    "TCP_AOKEYNOTFOUND": _loss("its TCP-AO key is not known here", _AUTH),
    "TCP_AOFAILURE": _loss("its TCP-AO signature is wrong", _AUTH),
    "SOCKET_BACKLOG": _loss(
        "the socket's backlog is full: its program holds the socket while much arrives",
        "a reader with less work under the lock, a larger SO_RCVBUF, or several connections",
    ),
    "TCP_FLAGS": _loss("its TCP flags make no sense where the connection stands", _MALFORMED),
    "TCP_ABORT_ON_DATA": _loss(
        "data came for a connection that its program has closed with data unread",
        "the program closes before it has read all: an error of one of both ends",
    ),
    "TCP_ZEROWINDOW": _loss(
        "the receive window is closed: the program does not read",
        "millrace top shows which socket's queue stands",
    ),
    "TCP_OLD_DATA": _benign("data that had come before: sent again for nothing", _STALE),
    "TCP_OVERWINDOW": _loss("data beyond the window that was granted", _MALFORMED),
    "TCP_OFOMERGE": _benign("data that had come out of order before"),
    "TCP_RFC7323_PAWS": _loss(
        "its timestamp is older than what came before (PAWS)",
        "a NAT whose hosts' timestamps mix, or packets delayed for long",
    ),
    "TCP_RFC7323_PAWS_ACK": _benign("an old acknowledgement, by its timestamp", _STALE),
    "TCP_RFC7323_TW_PAWS": _loss(
        "a SYN for a connection in TIME-WAIT whose timestamp is not newer",
        "a NAT in front of several hosts; they need different source ports",
    ),
    "TCP_RFC7323_TSECR": _loss("it echoes a timestamp that was never sent", _MALFORMED),
    "TCP_LISTEN_OVERFLOW": _loss(
        "the listener's accept queue is full: its program does not accept fast enough",
        "listen(fd, larger) and sysctl -w net.core.somaxconn=4096; ss -lnt shows the queues",
    ),
    "TCP_OLD_SEQUENCE": _benign("before what was received already", _STALE),
    "TCP_INVALID_SEQUENCE": _loss("its sequence number is outside the window", _STALE),
    "TCP_INVALID_END_SEQUENCE": _loss("it ends beyond the window", _STALE),
    "TCP_INVALID_ACK_SEQUENCE": _loss("it acknowledges outside what was sent", _MALFORMED),
    "TCP_RESET": _benign("a reset: it has done its work"),
    "TCP_INVALID_SYN": _loss("a SYN within a connection", _MALFORMED),
    "TCP_CLOSE": _benign("for a socket that is closed"),
    "TCP_FASTOPEN": _benign("an acknowledgement of data that a Fast Open SYN carried"),
    "TCP_OLD_ACK": _benign("an acknowledgement of what was acknowledged already", _STALE),
    "TCP_TOO_OLD_ACK": _loss("an acknowledgement of long ago (RFC 5961)", _MALFORMED),
    "TCP_ACK_UNSENT_DATA": _loss("it acknowledges what was never sent", _MALFORMED),
    "TCP_OFO_QUEUE_PRUNE": _loss(
        "data behind a gap was thrown away to make room",
        "the receive buffer is too small for this path: sysctl net.ipv4.tcp_rmem",
    ),
    "TCP_OFO_DROP": _benign("data behind a gap that had come before"),
    "IP_OUTNOROUTES": _loss("no route leads there", "ip route get ADDRESS"),
    "BPF_CGROUP_EGRESS": _loss("a BPF program of a cgroup forbids it", "bpftool cgroup tree"),
    "IPV6DISABLED": _loss(
        "IPv6 is switched off on the interface",
        "sysctl -w net.ipv6.conf.IFACE.disable_ipv6=0, or have its sender not use IPv6",
    ),
    "NEIGH_CREATEFAIL": _loss(
        "no neighbour entry could be made",
        "the table may be full: sysctl net.ipv4.neigh.default.gc_thresh3; ip -s neigh",
    ),
    "NEIGH_FAILED": _loss(
        "the next hop does not answer ARP or neighbour discovery",
        "ip neigh show nud failed; is the host up, and in this network?",
    ),
    "NEIGH_QUEUEFULL": _loss(
        "too many packets wait for the next hop's address",
        "sysctl net.ipv4.neigh.IFACE.unres_qlen_bytes; is the host up?",
    ),
    "NEIGH_DEAD": _loss("the neighbour entry is being removed"),
    "NEIGH_HH_FILLFAIL": _loss("no link-layer header could be made for it"),
    "TC_EGRESS": _loss("a filter of tc drops it on its way out", "tc -s filter show dev IFACE"),
    "SECURITY_HOOK": _loss("a security module forbids it", "ausearch -m avc, or its log"),
    "QDISC_DROP": _loss(
        "the queueing discipline drops it: its queue is full, or it means to",
        "tc -s qdisc show dev IFACE; a rate that is too low, or a queue that is too short",
    ),
    "QDISC_OVERLIMIT": _loss(
        "the queueing discipline has its most packets", "tc -s qdisc show dev IFACE"
    ),
    "QDISC_CONGESTED": _loss(
        "the queueing discipline drops to keep its delay short (CoDel and the like)",
        "meant: the link is slower than what is sent; tc -s qdisc show dev IFACE",
    ),
    "CAKE_FLOOD": _loss("CAKE sheds a flow that does not slow down", "tc -s qdisc show"),
    "FQ_BAND_LIMIT": _loss("a band of fq has its most packets", "tc -s qdisc show dev IFACE"),
    "FQ_HORIZON_LIMIT": _loss("it is to leave too far in the future", "tc -s qdisc show"),
    "FQ_FLOW_LIMIT": _loss("a flow of fq has its most packets", "tc -s qdisc show dev IFACE"),
    "DUALPI2_STEP_DROP": _loss("DualPI2 drops it at its step threshold", "tc -s qdisc show"),
    "CPU_BACKLOG": _loss(
        "the CPU's backlog is full: softirqs do not keep up",
        "sysctl -w net.core.netdev_max_backlog=10000, and spread the load (RPS, more queues); "
        "millrace doctor looks closer",
    ),
    "XDP": _loss("an XDP program drops it", "ip -d link show IFACE; bpftool net"),
    "TC_INGRESS": _loss(
        "a filter of tc or BPF drops it as it comes in",
        "tc -s filter show dev IFACE ingress; where a Millrace af_packet channel is on the "
        "interface it is that channel's traffic, which Linux is kept from",
    ),
    "UNHANDLED_PROTO": _benign("nobody here speaks its ether type"),
    "SKB_CSUM": _loss("its checksum could not be computed"),
    "SKB_GSO_SEG": _loss("it could not be cut into segments"),
    "SKB_UCOPY_FAULT": _loss("a program's buffer could not be read"),
    "DEV_HDR": _loss("the device's header is wrong, or could not be made"),
    "DEV_READY": _loss("the device is not ready", "ip link show IFACE: is it up, with a carrier?"),
    "FULL_RING": _loss(
        "the ring to a program (TUN, TAP) or to the other end (veth) is full",
        "its reader is too slow; a longer queue (ip link set IFACE txqueuelen) helps with bursts",
    ),
    "NOMEM": _loss("no memory", "free; sysctl vm.min_free_kbytes"),
    "HDR_TRUNC": _loss("it ends within its headers", _MALFORMED),
    "TAP_FILTER": _loss("the program behind the TUN or TAP device filters it"),
    "TAP_TXFILTER": _benign("the TAP device's address filter does not want it"),
    "ICMP_CSUM": _loss("its ICMP checksum is wrong", _MALFORMED),
    "INVALID_PROTO": _loss("its protocol is not the one that belongs here", _MALFORMED),
    "IP_INADDRERRORS": _loss(
        "for an address that is not this host's, and this host does not forward",
        "its sender has a wrong route or neighbour; where a Millrace af_packet channel is on the "
        "interface, and Linux older than 6.6, it is that channel's traffic, which Linux sees too",
    ),
    "IP_INNOROUTES": _loss(
        "no route leads to where it wants to go, and this host forwards",
        "ip route get ADDRESS; or the sender has the wrong gateway",
    ),
    "IP_LOCAL_SOURCE": _loss(
        "it came from outside with an address of this host",
        "somebody has the same address: ip neigh; arping -D -I IFACE ADDRESS",
    ),
    "IP_INVALID_SOURCE": _loss("its source is no address of one host", _MALFORMED),
    "IP_LOCALNET": _loss(
        "it came from outside with an address of 127.0.0.0/8",
        "somebody forges it; sysctl net.ipv4.conf.IFACE.route_localnet allows it",
    ),
    "IP_INVALID_DEST": _loss("its destination is no address that may be reached", _MALFORMED),
    "PKT_TOO_BIG": _loss(
        "larger than the way takes, and it must not be cut",
        "compare the MTUs on the way: ip link; sysctl -w net.ipv4.tcp_mtu_probing=1",
    ),
    "DUP_FRAG": _loss("a fragment that came before", _STALE),
    "FRAG_REASM_TIMEOUT": _loss(
        "fragments of it were missing for too long",
        "loss on the way; better no fragments at all: smaller datagrams",
    ),
    "FRAG_TOO_FAR": _loss("too many other datagrams' fragments came in between"),
    "TCP_MINTTL": _loss("its time to live is below what the socket asks for (IP_MINTTL)"),
    "IPV6_BAD_EXTHDR": _loss("an IPv6 extension header makes no sense", _MALFORMED),
    "IPV6_NDISC_FRAG": _loss("neighbour discovery in a fragment (RFC 6980)", _MALFORMED),
    "IPV6_NDISC_HOP_LIMIT": _loss("neighbour discovery from beyond the link", _MALFORMED),
    "IPV6_NDISC_BAD_CODE": _loss("neighbour discovery with a wrong code", _MALFORMED),
    "IPV6_NDISC_BAD_OPTIONS": _loss("neighbour discovery with wrong options", _MALFORMED),
    "IPV6_NDISC_NS_OTHERHOST": _benign("a neighbour solicitation for another host"),
    "QUEUE_PURGE": _benign("a queue was emptied as its owner ended"),
    "TC_COOKIE_ERROR": _loss("tc could not keep its place between two filters"),
    "PACKET_SOCK_ERROR": _loss("a packet socket could not take it"),
    "TC_CHAIN_NOTFOUND": _loss("tc has no such chain", "tc chain show dev IFACE"),
    "TC_RECLASSIFY_LOOP": _loss("filters of tc run in circles", "tc filter show dev IFACE"),
    "VXLAN_INVALID_HDR": _loss("its VXLAN header makes no sense", _MALFORMED),
    "VXLAN_VNI_NOT_FOUND": _loss("nobody here has its VXLAN number", "ip -d link show type vxlan"),
    "MAC_INVALID_SOURCE": _loss("its source is no hardware address of one host", _MALFORMED),
    "VXLAN_ENTRY_EXISTS": _benign("VXLAN knows that neighbour elsewhere"),
    "NO_TX_TARGET": _loss("no place to send it to", "bridge fdb show; ip -d link"),
    "IP_TUNNEL_ECN": _loss("its ECN marks inside and outside of a tunnel contradict each other"),
    "TUNNEL_TXINFO": _loss("a tunnel was not told where to send it"),
    "LOCAL_MAC": _loss("it came from outside with our own hardware address", "look for a loop"),
    "ARP_PVLAN_DISABLE": _benign("ARP within one interface, which proxy_arp_pvlan would answer"),
    "MAC_IEEE_MAC_CONTROL": _benign("a frame for bridges only"),
    "BRIDGE_INGRESS_STP_STATE": _benign("the spanning tree keeps the bridge's port closed"),
    "CAN_RX_INVALID_FRAME": _loss("a CAN frame that makes no sense"),
    "CANFD_RX_INVALID_FRAME": _loss("a CAN FD frame that makes no sense"),
    "CANXL_RX_INVALID_FRAME": _loss("a CAN XL frame that makes no sense"),
    "PFMEMALLOC": _loss("memory is so short that only what frees some is received", "free -m"),
    "PSP_INPUT": _loss("PSP could not decrypt it"),
    "PSP_OUTPUT": _loss("PSP would not let it out in the clear"),
    "RECURSION_LIMIT": _loss("devices are stacked in a circle", "ip -d link"),
}

#: Beginnings of names of Millrace's own counters of drops. The longest that fits counts.
OWN: dict[str, Meaning] = {
    "drop_": _loss("dropped by the stack; its name says why", _MALFORMED),
    "drop_ethernet_not_ours": _benign("for another host"),
    "drop_ether_type": _benign("nobody here speaks its ether type"),
    "drop_vlan": _loss("it has a VLAN tag, and the stack is on no VLAN", "take the tag off before"),
    "drop_arp_not_ours": _benign("ARP between others"),
    "drop_ip_not_ours": _benign("for another host"),
    "drop_ip_checksum": _loss("its IPv4 header checksum is wrong", _MALFORMED),
    "drop_fragment_duplicate": _benign("a fragment that had come before"),
    "drop_fragment_bound": _loss(
        "too many datagrams are being put together", "better no fragments: smaller datagrams"
    ),
    "drop_fragment_timeout": _loss("fragments were missing for too long", "loss on the way"),
    "drop_ipv6": _benign("IPv6, and the stack has no IPv6 address"),
    "drop_ip_protocol": _benign("nobody here speaks its IP protocol"),
    "drop_multicast_not_joined": _benign("for a multicast group that nobody here is in"),
    "drop_igmp_ignored": _benign("a multicast message that is no business of ours"),
    "drop_mld_ignored": _benign("a multicast message that is no business of ours"),
    "drop_ndp_fragment": _loss("neighbour discovery in a fragment (RFC 6980)", _MALFORMED),
    "drop_ndp_not_ours": _benign("neighbour discovery between others"),
    "drop_icmp_ignored": _benign("an ICMP message that nobody needs"),
    "drop_icmp_unrelated": _benign("an ICMP error about nothing that we sent"),
    "drop_icmp_redirect": _benign("an ICMP redirect by another than our router, or to none"),
    "drop_dhcp_ignored": _benign("a DHCP message that is not for us"),
    "drop_udp_no_socket": _loss("no socket has the UDP port", "open one: Channel.datagram(port)"),
    "drop_udp_queue_full": _loss(
        "the socket's queue is full: its program reads too slowly",
        "read faster, or Channel(datagram_queue=...)",
    ),
    "drop_udp_no_frame": _loss("frames were short", "Channel(frames=...), and let go of payloads"),
    "drop_tcp_no_connection": _loss("no connection and no listener takes it", "listen there"),
    "drop_tcp_duplicate": _benign("data that had come before", _STALE),
    "drop_tcp_outside_window": _loss("outside the receive window", _STALE),
    "drop_tcp_challenged": _benign("a reset or SYN that is not believed (RFC 5961)"),
    "drop_tcp_time_wait_reset": _benign("a reset of a connection that is over"),
    "drop_tcp_out_of_order_full": _loss(
        "no room for data behind a gap", "Channel(out_of_order_frames=..., frames=...)"
    ),
    "drop_tcp_receive_queue_full": _loss(
        "the program does not read what has come", "read faster; Channel(frames=...)"
    ),
    "drop_listen_syn_queue_full": _loss(
        "too many half-open connections", "listen(syn_queue=...), or syn_cookies='when-full'"
    ),
    "drop_listen_behind": _loss(
        "a flood of SYNs, more than the thread can answer",
        "Channel(syn_patience=...), and turn more often",
    ),
    "drop_listen_accept_queue_full": _loss(
        "too many connections wait to be accepted", "listen(backlog=...), and turn more often"
    ),
    "drop_no_connection_entry": _loss("all connections are in use", "Channel(connections=...)"),
    "drop_reset_rate": _benign("an answer to wrong packets was left out: too many in this second"),
    "drop_icmp_rate": _benign("an answer to wrong packets was left out: too many in this second"),
    "drop_challenge_rate": _benign("an answer was left out: too many in this second"),
    "drop_no_frame": _loss("no frame was free", "Channel(frames=...), and let go of payloads"),
    "drop_control_queue_full": _loss("too many packets of our own wait to be sent"),
    "drop_no_route": _loss("the route is gone", "Channel.add_route(...)"),
    "drop_neighbour_": _loss("the next hop does not answer", "is the host up, in this network?"),
    "drop_link_down": _loss("the interface was down", "ip link set IFACE up"),
    "rx_no_frame": _loss(
        "the port found no free frame", "Channel(frames=...), and let go of payloads"
    ),
    "rx_ring_full": _loss(
        "the receive ring is full: the thread turns too seldom",
        "a core of its own, less work between two turns, or more threads",
    ),
    "rx_too_long": _loss("longer than a frame", "Channel(frame_size=...)"),
    "rx_": _loss("the port could not take it"),
    "tx_too_long": _loss("longer than the interface sends", "compare the MTUs"),
    "tx_refused": _loss("the kernel would not send it", "ip -s link show IFACE"),
    "tx_no_carrier": _loss("nobody is at the other end"),
    "tx_": _loss("the port could not send it"),
}


def of_kernel(name: str) -> Meaning:
    """What a reason of the kernel's means."""
    return KERNEL.get(name, UNKNOWN)


def of_own(name: str) -> Meaning:
    """What a counter of Millrace's own means."""
    fitting = [begin for begin in OWN if name.startswith(begin)]
    return OWN[max(fitting, key=len)] if fitting else UNKNOWN
