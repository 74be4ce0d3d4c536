"""Frames of many kinds, always the same ones, and expressions to filter them by."""

from __future__ import annotations

import random
import struct

_A, _B = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
_HOSTS4 = [bytes(host) for host in ((10, 0, 0, 1), (10, 0, 0, 2), (192, 0, 2, 7), (224, 0, 0, 1))]
_HOSTS6 = [
    bytes.fromhex(host)
    for host in (
        "20010db8000000000000000000000001",
        "20010db8000000000000000000000002",
        "fe8000000000000000000000000000aa",
        "ff020000000000000000000000000001",
    )
]
_PORTS = (22, 53, 80, 443, 1024, 8080, 65535)


def _ethernet(ether_type: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    inside = b"".join(struct.pack("!HH", tpid, tci) for tpid, tci in tags)
    return _B + _A + inside + struct.pack("!H", ether_type) + payload


def _ipv4(
    dice: random.Random, protocol: int, payload: bytes, fragment: int = 0, options: int = 0
) -> bytes:
    source, destination = dice.choice(_HOSTS4), dice.choice(_HOSTS4)
    total = 20 + 4 * options + len(payload)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + options,
        dice.choice((0, 0xB8)),
        total,
        dice.randrange(65536),
        fragment,
        dice.choice((1, 64, 255)),
        protocol,
        0,
        source,
        destination,
    )
    return header + b"\1" * (4 * options) + payload


def _ipv6(dice: random.Random, protocol: int, payload: bytes, extensions: bytes = b"") -> bytes:
    source, destination = dice.choice(_HOSTS6), dice.choice(_HOSTS6)
    body = extensions + payload
    flow = 0x60000000 | dice.choice((0, 0x0B800000)) | dice.randrange(1 << 20)
    return struct.pack("!IHBB", flow, len(body), protocol, 64) + source + destination + body


def _tcp(dice: random.Random) -> bytes:
    flags = dice.choice((0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0xC2))
    options = dice.choice((0, 0, 3, 10))
    return (
        struct.pack(
            "!HHIIBBHHH",
            dice.choice(_PORTS),
            dice.choice(_PORTS),
            dice.randrange(1 << 32),
            dice.randrange(1 << 32),
            (5 + options) << 4,
            flags,
            dice.randrange(65536),
            0,
            0,
        )
        + b"\1" * (4 * options)
        + dice.randbytes(dice.choice((0, 1, 100, 1000)))
    )


def _udp(dice: random.Random) -> bytes:
    payload = dice.randbytes(dice.choice((0, 5, 500)))
    ports = dice.choice(_PORTS), dice.choice(_PORTS)
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def _upper(dice: random.Random, six: bool) -> tuple[int, bytes]:
    return dice.choice(
        (
            (6, _tcp(dice)),
            (6, _tcp(dice)),
            (17, _udp(dice)),
            (17, _udp(dice)),
            (58 if six else 1, bytes((dice.choice((0, 8, 128, 135)), 0)) + dice.randbytes(40)),
            (132, dice.randbytes(30)),
            (dice.randrange(256), dice.randbytes(20)),
        )
    )


def _network(dice: random.Random) -> tuple[int, bytes]:
    match dice.randrange(12):
        case 0:
            operation = dice.choice((1, 2))
            ends = dice.choice(_HOSTS4), dice.choice(_HOSTS4)
            return 0x0806, struct.pack(
                "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, _A, ends[0], _B, ends[1]
            )
        case 1:
            return 0x0800, _ipv4(dice, 17, _udp(dice), dice.choice((0x2000, 0x0010, 0x4000)))
        case 2:
            return 0x0800, _ipv4(dice, *_upper(dice, False), options=dice.choice((1, 10)))
        case 3:
            protocol, payload = _upper(dice, True)
            header = bytes((protocol, 0, 1, 4, 0, 0, 0, 0))
            return 0x86DD, _ipv6(dice, dice.choice((0, 43, 60)), payload, header)
        case 4:
            protocol, payload = _upper(dice, True)
            fragment = struct.pack("!BBHI", protocol, 0, dice.choice((1, 8, 9)), 77)
            return 0x86DD, _ipv6(dice, 44, payload, fragment)
        case 5:
            return dice.choice((0x88CC, 0x0026, 0x8864, 0x8847, 0x9000)), dice.randbytes(46)
        case _ if dice.random() < 0.4:
            return 0x86DD, _ipv6(dice, *_upper(dice, True))
        case _:
            return 0x0800, _ipv4(dice, *_upper(dice, False))


def frames(count: int = 600, seed: int = 1) -> list[bytes]:
    """Frames as a network has them, and some that are cut or damaged."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        tags = dice.choice(
            ((), (), (), ((0x8100, 5),), ((0x8100, 0xE007),), ((0x88A8, 5), (0x8100, 7)))
        )
        ether_type, payload = _network(dice)
        frame = bytearray(_ethernet(ether_type, payload, *tags))
        if dice.random() < 0.1:
            frame = frame[: dice.randrange(len(frame) + 1)]
        elif dice.random() < 0.1:
            for _ in range(3):
                frame[dice.randrange(len(frame))] = dice.randrange(256)
        if dice.random() < 0.5:
            frame = frame.ljust(60, b"\0")
        made.append(bytes(frame))
    return made


_PRIMITIVES = """
ip; ip6; arp; rarp; tcp; udp; icmp; icmp6; sctp; igmp; ah; esp; pim; vrrp; atalk; iso; stp; ipx
ip proto 17; ip proto 6; ip6 proto 58; ip6 proto 0; ip proto 255; ether proto 0x86dd
ether proto 0x88cc; ether proto \\ip; ether proto 0x0026; ether host 02:00:00:00:00:01
ether src 02:00:00:00:00:02; ether dst 02:00:00:00:00:02; ether broadcast; ether multicast
multicast; ip multicast; ip6 multicast; host 10.0.0.1; src host 10.0.0.1; dst host 10.0.0.2
src or dst host 192.0.2.7; src and dst host 10.0.0.1; host 2001:db8::1; src host 2001:db8::1
dst host fe80::aa; ip host 10.0.0.1; ip6 host ff02::1; arp host 10.0.0.1; arp src host 10.0.0.2
net 10.0.0.0/8; src net 10.0.0.0/24; dst net 192.0.2.0/25; net 2001:db8::/32; src net fe80::/10
net 10.0.0; net 10.0.0.0 mask 255.255.255.0; net 0.0.0.0/0; port 53; port 80; src port 80
dst port 443; src or dst port 22; src and dst port 80; port 65535; port 0; tcp port 80
udp port 53; tcp src port 443; udp dst port 53; tcp dst port 1024; sctp port 80; portrange 50-500
src portrange 0-100; dst portrange 1024-65535; tcp portrange 80-81; udp portrange 53-53; less 60
greater 60; greater 1000; less 100; len = 60; len > 500; len <= 59; len != 60; len >= 1514; vlan
vlan 5; vlan 7; vlan 5 and tcp; vlan and ip6; vlan 5 and vlan 7; vlan 5 and vlan 7 and udp
vlan and vlan; vlan and host 10.0.0.1; vlan 7 and port 53; vlan 4095; vlan and arp
vlan and len > 100; mpls; mpls 100; pppoes; pppoed; pppoes and ip; tcp[tcpflags] & tcp-syn != 0
tcp[tcpflags] == tcp-syn; tcp[tcpflags] & (tcp-syn|tcp-fin) != 0; tcp[tcpflags] & tcp-rst != 0
tcp[13] & 0xc0 != 0; tcp[12] >> 4 > 5; tcp[2:2] = 80; tcp[0:2] > 1023; tcp[4:4] > 0x80000000
tcp[14:2] < 1000; tcp[20:2] = 0x0101; tcp[((tcp[12] & 0xf0) >> 2):1] = 0; udp[0:2] = 53
udp[4:2] > 100; udp[8] & 1 = 1; udp[8:4] != 0; icmp[0] = 8; icmp[icmptype] = icmp-echo
icmp[icmpcode] = 0; icmp6[0] = 135; icmp6[icmp6type] = icmp6-echo; ip[0] & 0xf > 5; ip[8] = 64
ip[8] < 64; ip[1] & 0xfc == 0xb8; ip[2:2] > 500; ip[6:2] & 0x1fff = 0; ip[6:2] & 0x3fff != 0
ip[6] & 0x20 != 0; ip[9] = 17; ip[12:4] = 0x0a000001; ip[16:4] & 0xff000000 = 0x0a000000
ip6[6] = 0; ip6[6] = 44; ip6[7] = 64; ip6[4:2] > 100; ip6[8:4] = 0x20010db8
ip6[0:4] & 0xfff00000 = 0x6b800000; ip6[40] = 58; ip6[6] = 60 and ip6[40] = 17; ether[0] & 1 = 0
ether[0] & 1 = 1; ether[12:2] = 0x0800; ether[12:2] > 1500; ether[12:2] <= 1500
ether[12:4] = 0x81000005; ether[13] = 0; ether[14] & 0xf0 = 0x40; ether[11:2] = 0x0108
ether[10:4] != 0; ether[15:2] = 0x0508; ether[16:2] = 0x0800; ether[20:4] = 0; ether[100] = 0
ether[1500] = 0; ether[70000] = 0; ether[ip[0] & 15] = 0; ether[ether[14] & 15:2] = 0x0800
ether[ether[13]:4] > 5; ip[ip[0] & 0xf] = 0; ether[len - 1] = 0; ether[len - 4:4] = 0
ether[0xffffffff] = 0; ether[ip[4:2]] = 0; ether[0] + ether[1] = 2; ip[2:2] - 20 > 100
ip[2:2] * 2 > 1000; ip[2:2] / 3 = 20; ip[2:2] % 7 = 3; ip[2:2] / (ip[6] & 0x1f) > 1
1 << ip[8] = 2; ip[4:2] >> ip[9] = 0; ip[4:2] ^ ip[10:2] & 1 = 0; len - ip[2:2] = 14
"""


def _expressions() -> list[str]:
    primitives = [
        text.strip() for line in _PRIMITIVES.strip().splitlines() for text in line.split(";")
    ]
    dice = random.Random(2)
    plain = [text for text in primitives if text.split()[0] not in ("vlan", "mpls", "pppoes")]
    combined = []
    while len(combined) < 180:
        first, second, third = dice.sample(plain, 3)
        combined += [f"({first}) or ({second})", f"({first}) and not ({second})"]
        combined.append(f"not ({first}) and (({second}) or ({third}))")
    return primitives + combined


#: More than 300 expressions.
EXPRESSIONS = _expressions()
