"""The same segments to a listener of ours and to one of the kernel's: programs see the same.

What comes is invented from a seed: pieces in order and not, repeated and overlapping, old and far
away numbers and timestamps, wrong acknowledgements, SYNs, FINs and resets in between. Before each
next one the peer asks for an echo (ICMP), so that nothing depends on time: what is answered at
once is there before the echo is.

What the two may do differently is left out. Which acknowledgements are delayed and what they
report is for tests in virtual time. Different bytes with one number, resets from behind a gap
without SACK, data with an acknowledgement from before the connection and clocks that leap have no
right answer, or ours is the stricter.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from millrace.lab import Host, Lab
from millrace.net import ACCEPTED, CLOSED, FINISHED, Channel, Handle

pytestmark = pytest.mark.networks

PORT = 7000
FIN, SYN, RST, PSH, ACK, ECE, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x40, 0x80
#: Of as many seeds as the environment says.
SEEDS = int(os.environ.get("MILLRACE_SEEDS", "600"))
MODULUS = 1 << 32


@dataclasses.dataclass(frozen=True)
class Segment:
    """Numbers count from the first bytes of both streams."""

    flags: int
    at: int
    size: int
    #: None: all that was seen of what the other end sent.
    acknowledges: int | None
    #: What the timestamp is later than that of the segment before; 1 is usual.
    later: int = 1
    #: How the echoed timestamp differs from the last one seen; None: 0 is echoed.
    echoed: int | None = 0
    extra: bytes = b""


@dataclasses.dataclass(frozen=True)
class Write:
    """The program at the other end writes so much; 0: it will write nothing more."""

    size: int


@dataclasses.dataclass
class Script:
    """What a peer does in one connection."""

    timestamps: bool
    options: bytes
    steps: list[Segment | Write]


def invent(seed: int) -> Script:
    """The script of a seed."""
    dice = random.Random(seed)
    timestamps = dice.random() < 0.6
    options = dice.choice([b"", struct.pack(">BBH", 2, 4, 536), struct.pack(">BBH", 2, 4, 1460)])
    options += b"\x04\x02" if dice.random() < 0.7 else b""
    options += dice.choice([b"", b"\x03\x03\x00", b"\x03\x03\x07"])
    end = dice.choice([0, 1, 100, 600, 1000, 2500, 4000, 6000])
    steps: list[Segment | Write] = []
    now, written, over = 0, 0, False
    for _ in range(dice.randint(2, 9)):
        act = dice.random()
        if act < 0.14:
            steps.append(Write(size := dice.choice([1, 100, 536, 1000])))
            written += size
            continue
        if act < 0.18:
            steps.append(Write(0))
            over = True
            continue
        at = now
        if dice.random() < 0.45:
            near = [-1000, -100, -50, -2, -1, 1, 2, 50, 100, 500, 1000, 3000, 20_000]
            at += dice.choice([*near, -(1 << 26), 1 << 26])
        size = dice.choice([0, 0, 0, 1, 100, 100, 100, 500, 1000, 1400])
        if at + size > end and at < end + 3:
            size = max(0, end - at)
        flags = ACK | dice.choice([0] * 10 + [PSH] * 4 + [ECE, CWR])
        if at >= -1000 and at + size == end and dice.random() < 0.7:
            flags |= FIN
        rare = dice.random()
        if rare < 0.1:
            flags = dice.choice([RST, RST | ACK])
            # One from behind a gap is believed where the gap was told of.
            at = now if now < at < now + 100_000 else at
        elif rare < 0.16 and not over:
            # After a reset, or both FINs, it would begin something new.
            flags = dice.choice([SYN, SYN | ACK])
        acknowledges: int | None = written
        if dice.random() < 0.3:
            wrong = [0, written - 1, written + 1, written // 2, written + 1000, 1 << 31]
            acknowledges = dice.choice([None, *(one for one in wrong if one >= 0)])
        later = dice.choice([1] * 9 + [0, -1000])
        echoed = dice.choice([0] * 9 + [None, -100_000, 1_000_000])
        extra = dice.choice([b""] * 15 + [b"\xfd\x06what", b"\x02\x04\x02\x58"])
        steps.append(Segment(flags, at, size, acknowledges, later, echoed, extra))
        over = over or bool(flags & RST and abs(at - now) <= 2)
        taken = (acknowledges is None or acknowledges <= written) and (later >= 0 or not timestamps)
        if at <= now < at + size and taken and not flags & (SYN | RST):
            now = at + size
    return Script(timestamps, options, steps)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Ipv4:
    """Packets between two hosts, echoes (RFC 792) and hardware addresses (RFC 826)."""

    peer, host, prefix = "192.0.2.1", "192.0.2.2", 24
    ether_type = 0x0800
    family = socket.AF_INET

    @classmethod
    def packet(cls, protocol: int, payload: bytes) -> bytes:
        ends = socket.inet_aton(cls.peer) + socket.inet_aton(cls.host)
        size = 20 + len(payload)
        head = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, protocol, 0) + ends
        return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload

    @classmethod
    def pseudo(cls, protocol: int, size: int) -> bytes:
        ends = socket.inet_aton(cls.peer) + socket.inet_aton(cls.host)
        return ends + struct.pack(">HH", protocol, size)

    @classmethod
    def echo(cls, number: int) -> bytes:
        message = struct.pack(">BBHHH", 8, 0, 0, 7, number)
        return cls.packet(1, message[:2] + struct.pack(">H", checksum(message)) + message[4:])

    @classmethod
    def payload(cls, packet: bytes) -> tuple[int, bytes]:
        """The protocol, and what is in a packet."""
        return packet[9], packet[(packet[0] & 15) * 4 : int.from_bytes(packet[2:4])]

    @classmethod
    def is_echo(cls, protocol: int, message: bytes, number: int) -> bool:
        return protocol == 1 and message[0] == 0 and int.from_bytes(message[6:8]) == number

    @classmethod
    def resolve(cls, frame: bytes, own: bytes) -> bytes | None:
        """The answer to who has the peer's address, if this frame asks for it."""
        question = frame[14:]
        peer = socket.inet_aton(cls.peer)
        if frame[12:14] != b"\x08\x06" or question[6:8] != b"\x00\x01" or question[24:28] != peer:
            return None
        answer = question[:6] + b"\x00\x02" + own + peer + question[8:18]
        return question[8:14] + own + b"\x08\x06" + answer

    @classmethod
    def give_address(cls, host: Host) -> None:
        host.run(["ip", "address", "add", f"{cls.host}/{cls.prefix}", "dev", "eth0"])


class Ipv6(Ipv4):
    """The same by RFC 8200, RFC 4443 and RFC 4861."""

    peer, host, prefix = "2001:db8::1", "2001:db8::2", 64
    ether_type = 0x86DD
    family = socket.AF_INET6

    @classmethod
    def ends(cls) -> bytes:
        return b"".join(socket.inet_pton(cls.family, end) for end in (cls.peer, cls.host))

    @classmethod
    def packet(cls, protocol: int, payload: bytes, hops: int = 64) -> bytes:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, hops) + cls.ends() + payload

    @classmethod
    def pseudo(cls, protocol: int, size: int) -> bytes:
        return cls.ends() + struct.pack(">II", size, protocol)

    @classmethod
    def message(cls, kind: int, body: bytes) -> bytes:
        data = struct.pack(">BBH", kind, 0, 0) + body
        return data[:2] + struct.pack(">H", checksum(cls.pseudo(58, len(data)) + data)) + body

    @classmethod
    def echo(cls, number: int) -> bytes:
        return cls.packet(58, cls.message(128, struct.pack(">HH", 7, number)))

    @classmethod
    def payload(cls, packet: bytes) -> tuple[int, bytes]:
        return packet[6], packet[40 : 40 + int.from_bytes(packet[4:6])]

    @classmethod
    def is_echo(cls, protocol: int, message: bytes, number: int) -> bool:
        return protocol == 58 and message[0] == 129 and int.from_bytes(message[6:8]) == number

    @classmethod
    def resolve(cls, frame: bytes, own: bytes) -> bytes | None:
        protocol, question = cls.payload(frame[14:])
        peer, host = (socket.inet_pton(cls.family, end) for end in (cls.peer, cls.host))
        wanted = protocol == 58 and question[0] == 135 and question[8:24] == peer
        if frame[12:14] != b"\x86\xdd" or not wanted or frame[22:38] != host:
            return None
        answer = cls.message(136, b"\x60\x00\x00\x00" + peer + b"\x02\x01" + own)
        return frame[6:12] + own + b"\x86\xdd" + cls.packet(58, answer, 255)

    @classmethod
    def give_address(cls, host: Host) -> None:
        host.sysctl("net.ipv6.conf.eth0.disable_ipv6", 0)
        where = ["dev", "eth0", "nodad"]
        host.run(["ip", "-6", "address", "add", f"{cls.host}/{cls.prefix}", *where])


@dataclasses.dataclass(frozen=True)
class Heard:
    """A segment that came back."""

    port: int
    sequence: int
    flags: int
    size: int
    options: bytes

    @classmethod
    def of(cls, data: bytes) -> Heard:
        _, port, sequence, _, offset, flags = struct.unpack_from(">HHIIBB", data)
        head = (offset >> 4) * 4
        return cls(port, sequence, flags, len(data) - head, data[20:head])

    def timestamp(self) -> int | None:
        left = self.options
        while left and left[0] != 0:
            size = 1 if left[0] == 1 else left[1]
            if left[0] == 8:
                return int(struct.unpack_from(">I", left, 2)[0])
            left = left[size:]
        return None


class Wire:
    """The peer's end of a wire to a host. The peer's kernel has no address there, and is silent."""

    def __init__(self, lab: Lab, peer: Host, host: Host, name: str, ip: type[Ipv4]) -> None:
        lab.wire(peer, host, addresses=(None, None), names=(name, None))
        self.ip = ip
        with peer.enter():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((name, 3))
        self.socket.settimeout(0.001)
        own, other = (
            bytes.fromhex(
                one.run(["cat", f"/sys/class/net/{card}/address"]).stdout.replace(":", "")
            )
            for one, card in ((peer, name), (host, "eth0"))
        )
        self._own, self._head = own, other + own
        self._echoes = 0

    def send(self, packet: bytes) -> None:
        self.socket.send(self._head + struct.pack(">H", self.ip.ether_type) + packet)

    def answers(self, turn: Any) -> list[Heard]:
        """What came back before the echo of what is sent now. `turn` lets the host do its work."""
        self._echoes = (self._echoes + 1) & 0xFFFF
        self.send(self.ip.echo(self._echoes))
        heard: list[Heard] = []
        for _ in range(20_000):
            turn()
            try:
                frame = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            if frame[6:12] == self._own:
                continue
            if answer := self.ip.resolve(frame, self._own):
                self.socket.send(answer)
            elif int.from_bytes(frame[12:14]) == self.ip.ether_type:
                protocol, inner = self.ip.payload(frame[14:])
                if self.ip.is_echo(protocol, inner, self._echoes):
                    return heard
                if protocol == 6:
                    heard.append(Heard.of(inner))
        raise AssertionError("the host does not answer")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a program has seen of its connection."""

    read: int
    sum: int
    ended: bool
    failed: bool


class Arm(abc.ABC):
    """A host with a listener, and what its program has seen of the connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.begin()

    def begin(self) -> None:
        """No connection was seen."""
        self.data = bytearray()
        self.ended = False
        self.failed = False

    def seen(self) -> Seen:
        """What its program has seen."""
        self.turn()
        failed = self.failed and not self.ended
        return Seen(len(self.data), zlib.crc32(self.data), self.ended, failed)

    @abc.abstractmethod
    def turn(self) -> None:
        """Let the host work, and the program read."""

    @abc.abstractmethod
    def write(self, size: int) -> None:
        """The program writes so much; 0: nothing more."""

    @abc.abstractmethod
    def drop(self) -> None:
        """Forget the connection, if there is one."""

    def close(self) -> None:
        self.drop()
        self.wire.socket.close()


class Kernel(Arm):
    """Linux."""

    def __init__(self, wire: Wire, host: Host) -> None:
        host.sysctl("net.ipv4.tcp_invalid_ratelimit", 0)
        wire.ip.give_address(host)
        self._ip = wire.ip
        self._accepted: socket.socket | None = None
        self._host = host
        self._listen()
        super().__init__(wire)

    def _listen(self) -> None:
        with self._host.enter():
            self._listener = socket.socket(self._ip.family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener.bind((self._ip.host, PORT))
        self._listener.listen(16)
        self._listener.setblocking(False)

    def turn(self) -> None:
        try:
            if self._accepted is None:
                self._accepted, _ = self._listener.accept()
                self._accepted.setblocking(False)
            while not (self.ended or self.failed):
                data = self._accepted.recv(1 << 16)
                self.data += data
                self.ended = not data
        except BlockingIOError:
            pass
        except ConnectionError:
            self.failed = True

    def write(self, size: int) -> None:
        self.turn()
        with contextlib.suppress(OSError):
            if self._accepted is not None and size:
                self._accepted.send(bytes(size))
            elif self._accepted is not None:
                self._accepted.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        if self._accepted is not None:
            linger = struct.pack("ii", 1, 0)
            self._accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._accepted.close()
            self._accepted = None
        # With it go the connections that nobody has accepted.
        self._listener.close()
        self._listen()

    def close(self) -> None:
        super().close()
        self._listener.close()


class Ours(Arm):
    """Our stack."""

    def __init__(self, wire: Wire, host: Host) -> None:
        with host.enter():
            self.channel = Channel(
                "af_packet:eth0",
                f"{wire.ip.host}/{wire.ip.prefix}",
                hugepages=False,
                dad_transmits=0,
                invalid_ack_interval=0,
                resets_per_second=(1 << 32) - 1,
                challenge_acks_per_second=(1 << 32) - 1,
            )
        self.channel.listen(PORT)
        self._handle: Handle | None = None
        super().__init__(wire)

    def turn(self) -> None:
        for told in self.channel.turn(0) or []:
            if told.kind is ACCEPTED and self._handle is None:
                self._handle = told.handle
            if told.handle is self._handle:
                self.data += told.data
                self.ended |= told.kind is FINISHED
                self.failed |= told.kind is CLOSED and told.error is not None

    def write(self, size: int) -> None:
        with contextlib.suppress(OSError):
            if self._handle is not None and size:
                self._handle.write(bytes(size))
            elif self._handle is not None:
                self._handle.shutdown()

    def drop(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.abort()
            self._handle = None
        self.turn()

    def close(self) -> None:
        super().close()
        self.channel.close(0)


class Run:
    """One script with one arm."""

    def __init__(self, arm: Arm, script: Script, seed: int) -> None:
        self._arm, self._script = arm, script
        self._port = 10_000 + seed % 50_000
        self._first = random.Random(seed).randrange(MODULUS)
        self._clock = 1000
        self._echo = 0
        #: The number before the other end's first byte, and how far it has come.
        self._theirs, self._reached = 0, 0

    def all(self) -> list[tuple[Seen, bool]]:
        """What the program has seen after each step, and whether a reset came."""
        self._arm.begin()
        try:
            opened = self._send(SYN, self._first, 0, self._script.options, echo=0)
            assert [one.flags for one in opened] == [SYN | ACK]
            self._theirs = opened[0].sequence
            self._send(ACK, self._first + 1, self._theirs + 1, echo=self._echo)
            return [self._step(step) for step in self._script.steps]
        finally:
            self._arm.drop()
            self._arm.wire.answers(self._arm.turn)

    def _step(self, step: Segment | Write) -> tuple[Seen, bool]:
        if isinstance(step, Write):
            self._arm.write(step.size)
            return self._after(self._hear())
        self._clock += 1 if step.later == 1 else 0
        at = step.acknowledges if step.acknowledges is not None else self._reached
        heard = self._send(
            step.flags,
            self._first + 1 + step.at,
            self._theirs + 1 + at,
            step.extra,
            bytes((n * 7 + (n >> 8) * 13) & 0xFF for n in range(step.at, step.at + step.size)),
            clock=self._clock + (0 if step.later == 1 else step.later),
            echo=0 if step.echoed is None else self._echo + step.echoed,
        )
        return self._after(heard)

    def _after(self, heard: list[Heard]) -> tuple[Seen, bool]:
        return self._arm.seen(), any(one.flags & RST for one in heard)

    def _send(
        self,
        flags: int,
        sequence: int,
        acknowledges: int,
        options: bytes = b"",
        data: bytes = b"",
        *,
        echo: int,
        clock: int | None = None,
    ) -> list[Heard]:
        if self._script.timestamps:
            clock = self._clock if clock is None else clock
            options += struct.pack(">BBII", 8, 10, clock % MODULUS, echo % MODULUS)
        options += b"\x01" * (-len(options) % 4)
        numbers = (sequence % MODULUS, acknowledges % MODULUS if flags & ACK else 0)
        offset = (5 + len(options) // 4) << 4
        head = struct.pack(">HHIIBBHHH", self._port, PORT, *numbers, offset, flags, 65_535, 0, 0)
        head += options
        ip = self._arm.wire.ip
        total = checksum(ip.pseudo(6, len(head) + len(data)) + head + data)
        self._arm.wire.send(ip.packet(6, head[:16] + struct.pack(">H", total) + head[18:] + data))
        return self._hear()

    def _hear(self) -> list[Heard]:
        # Our stack answers echoes before it sends what a turn gave: the second one is behind that.
        heard = [*self._arm.wire.answers(self._arm.turn), *self._arm.wire.answers(self._arm.turn)]
        heard = [one for one in heard if one.port == self._port]
        for one in heard:
            if not one.flags & RST:
                self._echo = one.timestamp() or self._echo
                end = one.sequence + one.size + bool(one.flags & FIN) - self._theirs - 1
                self._reached = max(self._reached, end % MODULUS if not one.flags & SYN else 0)
        return heard


@pytest.fixture(params=[Ipv4, Ipv6])
def arms(lab: Lab, request: pytest.FixtureRequest) -> Iterator[list[Arm]]:
    peer, kernel, ours = lab.host("peer"), lab.host("kernel"), lab.host("ours")
    for host in (peer, kernel, ours):
        host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    made: list[Arm] = [
        Kernel(Wire(lab, peer, kernel, "wire0", request.param), kernel),
        Ours(Wire(lab, peer, ours, "wire1", request.param), ours),
    ]
    yield made
    for arm in made:
        arm.close()


def test_programs_see_the_same_of_whatever_comes(arms: list[Arm]) -> None:
    for arm in arms:
        arm.wire.answers(arm.turn)
    reads, ends, errors, resets = 0, 0, 0, 0
    for seed in range(SEEDS):
        script = invent(seed)
        kernel, ours = (Run(arm, script, seed).all() for arm in arms)
        steps = list(zip(script.steps, kernel, ours, strict=True))
        assert kernel == ours, f"seed {seed}, {script}:\n" + "\n".join(map(str, steps))
        last, _ = ours[-1]
        reads += last.read > 0
        ends += last.ended
        errors += last.failed
        resets += any(reset for _, reset in ours)
    # All of it happens.
    assert min(reads, ends, errors) > SEEDS // 20
    assert resets > 0
