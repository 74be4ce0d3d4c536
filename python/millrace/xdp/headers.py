"""The headers that programs know: where their fields are and what writing one takes.

Compiler and plain run read the same tables, so a field means the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Field:
    """A field: `size` bytes in network order at `offset`, of which it is the bits from `shift` on,
    as many as `mask` has; all of them where that is 0.
    """

    offset: int
    size: int
    shift: int = 0
    mask: int = 0
    #: "int", "bool", "ipv4", "ipv6" or "mac".
    kind: str = "int"
    writable: bool = False
    #: It is part of the pseudo-header that the transport's checksum covers.
    pseudo: bool = False
    doc: str = ""

    @property
    def bits(self) -> int:
        return self.mask.bit_length() or 8 * self.size


@dataclass(frozen=True)
class Header:
    """A header: which bytes its fields are. Whether a frame has it is found out by `packet`."""

    name: str
    #: Bytes of the part that all of them have.
    size: int
    fields: dict[str, Field]
    doc: str
    #: Offset of its checksum over itself, of 16 bits.
    checksum: int | None = None
    #: 0 in the checksum field means that there is none (RFC 768).
    zero_is_none: bool = False
    #: What is behind the header or in its variable part.
    regions: tuple[str, ...] = field(default=())


def _int(offset: int, size: int, doc: str, *, writable: bool = False) -> Field:
    return Field(offset, size, writable=writable, doc=doc)


def _bits(offset: int, size: int, shift: int, mask: int, doc: str, writable: bool = True) -> Field:
    return Field(offset, size, shift, mask, writable=writable, doc=doc)


def _flag(offset: int, shift: int, doc: str) -> Field:
    return Field(offset, 1, shift, 1, kind="bool", writable=True, doc=doc)


ETHERNET = Header(
    "eth",
    14,
    {
        "dst": Field(0, 6, kind="mac", writable=True, doc="destination"),
        "src": Field(6, 6, kind="mac", writable=True, doc="source"),
        "ethertype": _int(12, 2, "EtherType, a VLAN tag's where there is one"),
    },
    "Ethernet: any frame of 14 bytes",
)


def _vlan(name: str, which: str) -> Header:
    return Header(
        name,
        4,
        {
            "tci": _int(0, 2, "all 16 bits of tag control information", writable=True),
            "pcp": _bits(0, 2, 13, 0x7, "priority code point"),
            "dei": Field(0, 1, 4, 1, kind="bool", writable=True, doc="drop eligible"),
            "id": _bits(0, 2, 0, 0xFFF, "VLAN identifier"),
            "ethertype": _int(2, 2, "EtherType of what is behind the tag"),
        },
        f"{which} VLAN tag (802.1Q or 802.1ad)",
    )


VLAN = _vlan("vlan", "the outer")
VLAN2 = _vlan("vlan2", "the inner")

ARP = Header(
    "arp",
    28,
    {
        "htype": _int(0, 2, "hardware type, 1"),
        "ptype": _int(2, 2, "protocol type, 0x0800"),
        "hlen": _int(4, 1, "length of a hardware address, 6"),
        "plen": _int(5, 1, "length of a protocol address, 4"),
        "operation": _int(6, 2, "1 request, 2 reply", writable=True),
        "sha": Field(8, 6, kind="mac", writable=True, doc="sender's hardware address"),
        "spa": Field(14, 4, kind="ipv4", writable=True, doc="sender's protocol address"),
        "tha": Field(18, 6, kind="mac", writable=True, doc="target's hardware address"),
        "tpa": Field(24, 4, kind="ipv4", writable=True, doc="target's protocol address"),
    },
    "ARP for IPv4 on Ethernet (RFC 826)",
)

IPV4 = Header(
    "ip",
    20,
    {
        "version": _bits(0, 1, 4, 0xF, "4", writable=False),
        "ihl": _bits(0, 1, 0, 0xF, "header length in words of 4 bytes", writable=False),
        "tos": _int(1, 1, "DSCP and ECN", writable=True),
        "dscp": _bits(1, 1, 2, 0x3F, "differentiated services code point"),
        "ecn": _bits(1, 1, 0, 0x3, "explicit congestion notification"),
        "total_length": _int(2, 2, "bytes of header and payload"),
        "id": _int(4, 2, "identification", writable=True),
        "df": _flag(6, 6, "don't fragment"),
        "mf": Field(6, 1, 5, 1, kind="bool", doc="more fragments"),
        "fragment_offset": _bits(6, 2, 0, 0x1FFF, "in units of 8 bytes", writable=False),
        "ttl": _int(8, 1, "time to live", writable=True),
        "protocol": _int(9, 1, "of the payload"),
        "checksum": _int(10, 2, "of the header", writable=True),
        "src": Field(12, 4, kind="ipv4", writable=True, pseudo=True, doc="source"),
        "dst": Field(16, 4, kind="ipv4", writable=True, pseudo=True, doc="destination"),
    },
    "IPv4 (RFC 791): version 4, a header length of 20 bytes or more, 20 bytes in the frame",
    checksum=10,
    regions=("options", "payload"),
)

IPV6 = Header(
    "ipv6",
    40,
    {
        "version": _bits(0, 1, 4, 0xF, "6", writable=False),
        "traffic_class": _bits(0, 2, 4, 0xFF, "DSCP and ECN"),
        "dscp": _bits(0, 2, 6, 0x3F, "differentiated services code point"),
        "ecn": _bits(1, 1, 4, 0x3, "explicit congestion notification"),
        "flow_label": _bits(0, 4, 0, 0xFFFFF, "flow label"),
        "payload_length": _int(4, 2, "bytes behind this header"),
        "next_header": _int(6, 1, "protocol of what follows"),
        "hop_limit": _int(7, 1, "hop limit", writable=True),
        "src": Field(8, 16, kind="ipv6", writable=True, pseudo=True, doc="source"),
        "dst": Field(24, 16, kind="ipv6", writable=True, pseudo=True, doc="destination"),
    },
    "IPv6 (RFC 8200): version 6, 40 bytes in the frame",
    regions=("payload",),
)


def _icmp(name: str, doc: str) -> Header:
    return Header(
        name,
        8,
        {
            "type": _int(0, 1, "type", writable=True),
            "code": _int(1, 1, "code", writable=True),
            "checksum": _int(2, 2, "over the message", writable=True),
            "id": _int(4, 2, "identifier of an echo", writable=True),
            "sequence": _int(6, 2, "sequence number of an echo", writable=True),
            "rest": _int(4, 4, "the second word, whatever it means", writable=True),
        },
        doc,
        checksum=2,
        regions=("payload",),
    )


ICMP = _icmp("icmp", "ICMP over IPv4 (RFC 792), no later fragment")
ICMPV6 = _icmp("icmpv6", "ICMPv6 (RFC 4443)")

UDP = Header(
    "udp",
    8,
    {
        "sport": _int(0, 2, "source port", writable=True),
        "dport": _int(2, 2, "destination port", writable=True),
        "length": _int(4, 2, "bytes of header and payload"),
        "checksum": _int(6, 2, "0: there is none", writable=True),
    },
    "UDP (RFC 768), no later fragment",
    checksum=6,
    zero_is_none=True,
    regions=("payload",),
)

TCP = Header(
    "tcp",
    20,
    {
        "sport": _int(0, 2, "source port", writable=True),
        "dport": _int(2, 2, "destination port", writable=True),
        "seq": _int(4, 4, "sequence number", writable=True),
        "ack": _int(8, 4, "acknowledgement number", writable=True),
        "data_offset": _bits(12, 1, 4, 0xF, "header length in words of 4 bytes", writable=False),
        "flags": _int(
            13, 1, "FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128", writable=True
        ),
        "fin": _flag(13, 0, "no more data"),
        "syn": _flag(13, 1, "synchronise sequence numbers"),
        "rst": _flag(13, 2, "reset"),
        "psh": _flag(13, 3, "push"),
        "urg": _flag(13, 5, "urgent pointer is valid"),
        "ece": _flag(13, 6, "congestion was experienced"),
        "cwr": _flag(13, 7, "congestion window was reduced"),
        "window": _int(14, 2, "window, not scaled", writable=True),
        "checksum": _int(16, 2, "over the segment", writable=True),
        "urgent": _int(18, 2, "urgent pointer", writable=True),
    },
    "TCP (RFC 9293), no later fragment",
    checksum=16,
    regions=("options", "payload"),
)

HEADERS = {
    header.name: header
    for header in (ETHERNET, VLAN, VLAN2, ARP, IPV4, IPV6, ICMP, ICMPV6, UDP, TCP)
}
#: Other names by which a program may call them.
ALIASES = {"ethernet": "eth", "ipv4": "ip", "ip6": "ipv6", "icmp6": "icmpv6"}

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPES_VLAN = (0x8100, 0x88A8)

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
#: Hop-by-hop options, routing, destination options: length in units of 8 bytes beyond the first
#: 8 (RFC 8200 section 4). The fragment header always has 8 bytes.
EXTENSIONS = (0, 43, 60)
FRAGMENT = 44

# The bits of a TCP segment's flags.
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
