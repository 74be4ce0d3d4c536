"""Random frames, from a seed: mostly what a network carries, some of them cut or damaged."""

from __future__ import annotations

import ipaddress
import random
import struct

from frames import checksum

_ADDRESSES4 = ["192.0.2.1", "192.0.2.9", "192.0.2.200", "10.0.0.1", "10.9.9.9", "203.0.113.7"]
_ADDRESSES6 = ["2001:db8::1", "2001:db8::2", "fe80::1", "2001:db9::1"]
_PORTS = [9, 53, 80, 443, 1000, 5353, 65535]


class Frames:
    """Random frames."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def frame(self) -> bytes:
        """A frame: mostly what a network carries, sometimes cut or damaged."""
        choose = self.random.choice
        macs = [bytes.fromhex("02000000000" + choose("123")) for _ in range(2)]
        data = macs[0] + macs[1]
        for _ in range(choose([0, 0, 0, 0, 1, 1, 2, 3])):
            data += struct.pack("!HH", choose([0x8100, 0x88A8]), self.random.getrandbits(16))
        data += self.network()
        roll = self.random.random()
        if roll < 0.12:
            data = data[: self.random.randint(14, len(data))]
        elif roll < 0.2:
            place = self.random.randrange(12, len(data))
            data = data[:place] + self.random.randbytes(1) + data[place + 1 :]
        if len(data) < 14:
            data = data.ljust(14, b"\0")
        return data + bytes(choose([0, 0, 0, 6]))

    def network(self) -> bytes:
        roll = self.random.random()
        if roll < 0.55:
            return b"\x08\x00" + self.ipv4()
        if roll < 0.8:
            return b"\x86\xdd" + self.ipv6()
        if roll < 0.9:
            return b"\x08\x06" + self.arp()
        return self.random.randbytes(2 + self.random.randrange(60))

    def ipv4(self) -> bytes:
        choose = self.random.choice
        source, target = (ipaddress.IPv4Address(choose(_ADDRESSES4)).packed for _ in range(2))
        protocol = choose([1, 6, 6, 17, 17, 17, 47])
        pseudo = source + target + bytes([0, protocol])
        payload = self.transport(protocol, pseudo, 4)
        options = self.random.randbytes(4 * choose([0, 0, 0, 1, 5, 10]))
        fragment = choose([0, 0, 0, 0, 0x4000, 0x2000, 0x2010, 100])
        length = 20 + len(options) + len(payload)
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45 + len(options) // 4, self.random.getrandbits(8), length,
            self.random.getrandbits(16), fragment, choose([1, 2, 64, 255]), protocol, 0, source,
            target,
        )  # fmt: skip
        head += options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload

    def ipv6(self) -> bytes:
        choose = self.random.choice
        source, target = (ipaddress.IPv6Address(choose(_ADDRESSES6)).packed for _ in range(2))
        protocol = choose([6, 17, 17, 58, 58, 59])
        payload = self.transport(protocol, source + target + bytes([0, protocol]), 6)
        following = protocol
        for _ in range(choose([0, 0, 0, 1, 2, 4])):
            kind = choose([0, 43, 60, 44])
            if kind == 44:
                offset = choose([0, 0, 1, 8])
                extension = struct.pack("!BBHI", following, 0, offset, 7)
            else:
                extra = choose([0, 0, 1])
                extension = bytes([following, extra]) + self.random.randbytes(6 + 8 * extra)
            following, payload = kind, extension + payload
        first = 6 << 28 | self.random.getrandbits(28)
        head = struct.pack("!IHBB", first, len(payload), following, choose([1, 64]))
        return head + source + target + payload

    def arp(self) -> bytes:
        operation = self.random.choice([1, 2])
        addresses = [ipaddress.IPv4Address(self.random.choice(_ADDRESSES4)).packed for _ in "ab"]
        mac = bytes.fromhex("020000000001")
        kind = self.random.choice([1, 1, 1, 6])
        return (
            struct.pack("!HHBBH", kind, 0x0800, 6, 4, operation)
            + mac + addresses[0] + mac + addresses[1]
        )  # fmt: skip

    def transport(self, protocol: int, pseudo: bytes, family: int) -> bytes:
        choose = self.random.choice
        body = self.random.randbytes(choose([0, 1, 8, 18, 30]))
        ports = struct.pack("!HH", choose(_PORTS), choose(_PORTS))
        if protocol == 17:
            data, place = ports + struct.pack("!HH", 8 + len(body), 0) + body, 6
        elif protocol == 6:
            options = self.random.randbytes(4 * choose([0, 0, 3, 5]))
            flags = (5 + len(options) // 4) << 12 | self.random.getrandbits(8)
            head = struct.pack(
                "!IIHHHH", self.random.getrandbits(32), self.random.getrandbits(32), flags,
                self.random.getrandbits(16), 0, 0,
            )  # fmt: skip
            data, place = ports + head + options + body, 16
        elif protocol in (1, 58):
            data = struct.pack("!BBHHH", choose([0, 8, 128, 129]), 0, 0, 7, 9) + body
            place = 2
        else:
            return body
        covered = data if protocol == 1 else pseudo + struct.pack("!H", len(data)) + data
        total = checksum(covered)
        if protocol == 17:
            total = 0 if family == 4 and self.random.random() < 0.2 else total or 0xFFFF
        return data[:place] + struct.pack("!H", total) + data[place + 2 :]


def frames(seed: int, count: int) -> list[bytes]:
    """Random frames."""
    made = Frames(seed)
    return [made.frame() for _ in range(count)]
