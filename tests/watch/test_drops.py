"""Drops that are planted, one for each reason, and found with the place and the flow."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Lab
from millrace.watch import drops, reasons
from millrace.watch.drops import Row, Selection, Watch, selection

from . import craft
from .conftest import powerless

pytestmark = [pytest.mark.networks, pytest.mark.usefixtures("tracing")]

MILLRACE = [sys.executable, "-m", "millrace"]


class Road:
    """A client and a server that forwards to a third host behind it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client, self.server = lab.host("client"), lab.host("server")
        self.wire = lab.wire(self.client, self.server)
        self.a, self.b = str(self.wire.a.ip), str(self.wire.b.ip)
        with self.client.enter():
            self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self.raw.bind((self.wire.a.name, 0))
        self.close: list[Callable[[], object]] = [self.raw.close]

    def keep(self, what: Any) -> Any:
        """What is closed at the end."""
        self.close.append(what.close)
        return what

    def send(self, ether_type: int, packet: bytes, *, to: str | None = None) -> None:
        """A frame from the client to the server."""
        there = to or self.wire.b.mac
        self.raw.send(craft.ethernet(self.wire.a.mac, there, ether_type, packet))

    def ip(self, protocol: int, payload: bytes, **options: Any) -> None:
        source, destination = options.pop("source", self.a), options.pop("destination", self.b)
        self.send(craft.IPV4, craft.ipv4(source, destination, protocol, payload, **options))

    def udp(self, port: int = 9, data: bytes = b"hello", **options: Any) -> None:
        self.ip(17, craft.udp(self.a, self.b, (4000, port), data, **options))

    def tcp(self, port: int, **options: Any) -> None:
        self.ip(6, craft.tcp(self.a, self.b, (4000, port), **options))

    def server_socket(self, kind: int, port: int) -> socket.socket:
        with self.server.enter():
            one = socket.socket(socket.AF_INET, kind)
        one.bind((self.b, port))
        return self.keep(one)

    def nft(self, *lines: str) -> None:
        for line in ("add table inet t", *lines):
            self.server.run(["nft", line])


@pytest.fixture
def road(lab: Lab) -> Iterator[Road]:
    road = Road(lab)
    yield road
    for close in reversed(road.close):
        close()


def no_socket(road: Road) -> None:
    road.udp()


def no_listener(road: Road) -> None:
    road.tcp(81)


def full_socket(road: Road) -> None:
    one = road.server_socket(socket.SOCK_DGRAM, 7)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    for _ in range(100):
        road.udp(7, bytes(1000))


def socket_filter(road: Road) -> None:
    one = road.server_socket(socket.SOCK_DGRAM, 7)
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # ret #0
    one.setsockopt(
        socket.SOL_SOCKET,
        26,  # SO_ATTACH_FILTER
        struct.pack("HL", 1, ctypes.addressof(program)),
    )
    road.udp(7)


def netfilter(road: Road) -> None:
    road.nft("add chain inet t c { type filter hook input priority 0; }")
    road.nft("add rule inet t c udp dport 9 drop")
    road.udp()


def udp_checksum(road: Road) -> None:
    road.server_socket(socket.SOCK_DGRAM, 9)
    road.udp(bad_checksum=True)


def tcp_checksum(road: Road) -> None:
    road.tcp(80, bad_checksum=True)


def icmp_checksum(road: Road) -> None:
    road.ip(1, craft.icmp(8, bad_checksum=True))


def ip_checksum(road: Road) -> None:
    road.ip(17, craft.udp(road.a, road.b, (4000, 9)), bad_checksum=True)


def ip_header(road: Road) -> None:
    road.ip(17, bytes(20), version=0x41)


def udp_length(road: Road) -> None:
    road.udp(length=4)


def no_protocol(road: Road) -> None:
    road.ip(253, bytes(20))


def unknown_ether_type(road: Road) -> None:
    road.send(0x1234, bytes(50))


def other_host(road: Road) -> None:
    # A frame for others is seen where somebody listens to all.
    with road.server.enter():
        road.keep(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    road.server.run(["ip", "link", "set", road.wire.b.name, "promisc", "on"])
    road.send(craft.IPV4, craft.ipv4(road.a, road.b, 17, bytes(20)), to="02:00:00:00:00:77")


def reverse_path(road: Road) -> None:
    road.server.sysctl("net.ipv4.conf.all.rp_filter", 1)
    road.ip(17, bytes(20), source="203.0.113.77")


def forged_localhost(road: Road) -> None:
    road.ip(17, bytes(20), source="127.0.0.1")


def forged_own_address(road: Road) -> None:
    road.ip(17, bytes(20), source=road.b)


def forged_multicast(road: Road) -> None:
    road.ip(17, bytes(20), source="224.0.0.9")


def no_way_on(road: Road) -> None:
    road.server.sysctl("net.ipv4.ip_forward", 1)
    road.ip(17, bytes(20), destination="203.0.113.99")


def not_a_router(road: Road) -> None:
    road.server.run(["ip", "route", "add", "203.0.113.0/24", "dev", road.wire.b.name])
    road.ip(17, bytes(20), destination="203.0.113.99")


def too_big_to_forward(road: Road) -> None:
    road.server.sysctl("net.ipv4.ip_forward", 1)
    narrow = road.lab.wire(road.server, road.lab.host("behind"), mtu=600)
    road.ip(17, bytes(1200), destination=str(narrow.b.ip), fragment=0x4000)


def ipv6_is_off(road: Road) -> None:
    road.send(craft.IPV6, b"\x60\0\0\0\0\0\x3b\x40" + bytes(15) + b"\x01" + bytes(15) + b"\x02")


def neighbour_is_silent(road: Road) -> None:
    road.client.sysctl(f"net.ipv4.neigh.{road.wire.a.name}.retrans_time_ms", 10)
    road.client.sysctl(f"net.ipv4.neigh.{road.wire.a.name}.mcast_solicit", 1)
    with road.client.enter():
        one = road.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent = str(road.wire.a.ip).rsplit(".", 1)[0] + ".77"
    one.sendto(b"hello", (silent, 9))


class Ghost:
    """A TCP client that the network is told of and that is nobody, so that nobody resets it."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.ip = road.a.rsplit(".", 1)[0] + ".66"
        there = ["lladdr", road.wire.a.mac, "dev", road.wire.b.name]
        road.server.run(["ip", "neigh", "add", self.ip, *there])
        with road.client.enter():
            ears = road.keep(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        self.send(sequence=1, flags=0x02)
        while True:
            answer = ears.recv(2048)
            if answer[12:14] == b"\x08\0" and answer[23] == 6 and answer[47] == 0x12:
                break
        #: The server's next number. Ours is 2.
        self.server = int.from_bytes(answer[38:42]) + 1

    def send(self, *, flags: int = 0x10, ahead: int = 0, **options: Any) -> None:
        if "sequence" not in options:
            options |= {"sequence": 2, "acknowledge": self.server + ahead}
        packet = craft.tcp(self.ip, self.road.b, (4001, 80), flags=flags, **options)
        self.road.ip(6, packet, source=self.ip)


def accept_queue_is_full(road: Road) -> None:
    road.server.sysctl("net.ipv4.tcp_syncookies", 0)
    road.server_socket(socket.SOCK_STREAM, 80).listen(1)
    ghost = Ghost(road)
    with road.client.enter():
        for _ in range(2):
            road.keep(socket.create_connection((road.b, 80)))
    ghost.send()


def connected(road: Road) -> Ghost:
    road.server_socket(socket.SOCK_STREAM, 80).listen(1)
    ghost = Ghost(road)
    ghost.send()
    return ghost


def beyond_the_window(road: Road) -> None:
    ghost = connected(road)
    ghost.send(sequence=2 + (1 << 30), acknowledge=ghost.server, data=b"x")


def of_long_ago(road: Road) -> None:
    ghost = connected(road)
    ghost.send(sequence=2 - (1 << 30) & 0xFFFFFFFF, acknowledge=ghost.server, data=b"x")


def data_twice(road: Road) -> None:
    ghost = connected(road)
    for data in (b"hello", b"hello", b"hello"):
        ghost.send(data=data)


def acknowledges_too_much(road: Road) -> None:
    connected(road).send(ahead=1000)


def queue_is_full(road: Road) -> None:
    tc = ["tc", "qdisc", "replace", "dev", road.wire.b.name, "root", "tbf"]
    road.server.run([*tc, "rate", "8kbit", "burst", "1540", "limit", "1540"])
    with road.server.enter():
        one = road.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for _ in range(20):
        with contextlib.suppress(OSError):
            one.sendto(bytes(1000), (road.a, 9))


def fragment_comes_twice(road: Road) -> None:
    for _ in range(2):
        road.ip(17, bytes(80), fragment=0x2000, identification=77)


def unread_tap(road: Road) -> None:
    import fcntl

    with road.server.enter():
        tap = os.open("/dev/net/tun", os.O_RDWR)
        road.close.append(lambda: os.close(tap))
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"full0", 0x1002))  # TUNSETIFF
        for words in ("address add 203.0.113.1/24 dev full0", "link set full0 up txqueuelen 2"):
            road.server.run(["ip", *words.split()])
        road.server.run(
            ["ip", "neigh", "add", "203.0.113.9", "lladdr", "02:00:00:00:00:09", "dev", "full0"]
        )
        one = road.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for _ in range(20):
        with contextlib.suppress(OSError):
            one.sendto(b"hello", ("203.0.113.9", 9))


PLANTED: dict[str, list[Callable[[Road], None]]] = {
    "NO_SOCKET": [no_socket, no_listener],
    "SOCKET_RCVBUFF": [full_socket],
    "SOCKET_FILTER": [socket_filter],
    "NETFILTER_DROP": [netfilter],
    "UDP_CSUM": [udp_checksum],
    "TCP_CSUM": [tcp_checksum],
    "ICMP_CSUM": [icmp_checksum],
    "IP_CSUM": [ip_checksum],
    "IP_INHDR": [ip_header],
    "PKT_TOO_SMALL": [udp_length],
    "IP_NOPROTO": [no_protocol],
    "UNHANDLED_PROTO": [unknown_ether_type],
    "OTHERHOST": [other_host],
    "IP_RPFILTER": [reverse_path],
    "IP_LOCALNET": [forged_localhost],
    "IP_LOCAL_SOURCE": [forged_own_address],
    "IP_INVALID_SOURCE": [forged_multicast],
    "IP_INNOROUTES": [no_way_on],
    "IP_INADDRERRORS": [not_a_router],
    "PKT_TOO_BIG": [too_big_to_forward],
    "IPV6DISABLED": [ipv6_is_off],
    "NEIGH_FAILED": [neighbour_is_silent],
    "TCP_LISTEN_OVERFLOW": [accept_queue_is_full],
    "QDISC_DROP": [queue_is_full],
    "TCP_INVALID_SEQUENCE": [beyond_the_window],
    "TCP_OLD_SEQUENCE": [of_long_ago],
    "TCP_OLD_DATA": [data_twice],
    "TCP_ACK_UNSENT_DATA": [acknowledges_too_much],
    "DUP_FRAG": [fragment_comes_twice],
    "FULL_RING": [unread_tap],
}
CASES = [(reason, plant) for reason, plants in PLANTED.items() for plant in plants]


def found(watch: Watch, road: Road, done: Callable[[list[Row]], object]) -> list[Row]:
    """The rows of a lab once they are as wanted; all rows if that does not come about."""
    rows: list[Row] = []
    for _ in range(60):
        watch.wait(0.05)
        rows = watch.rows()
        hosts = (road.client.netns, road.server.netns)
        ours = [row for row in rows if row.namespace in hosts]
        if done(ours):
            return ours
    raise AssertionError(f"not found in: {rows}")


@pytest.mark.parametrize(("reason", "plant"), CASES, ids=[plant.__name__ for _, plant in CASES])
def test_a_planted_drop_is_found(road: Road, reason: str, plant: Callable[[Road], None]) -> None:
    with Watch(selection(wanted=[reason])) as watch:
        assert not watch.blind
        plant(road)
        row = found(watch, road, lambda rows: rows)[0]
    assert row.reason == reason
    assert row.source == "kernel"
    assert row.packets > 0
    assert row.where
    assert "0x" not in row.where
    meaning = reasons.KERNEL[reason]
    assert (row.kind, row.why, row.remedy) == (meaning.kind, meaning.why, meaning.remedy)
    if reason not in ("NEIGH_FAILED", "DUP_FRAG"):
        assert row.interface


def test_at_least_fifteen_reasons_are_planted() -> None:
    assert len(PLANTED) >= 15


def test_the_flow_and_the_protocol_are_told(road: Road) -> None:
    with Watch(Selection()) as watch:
        for _ in range(30):
            road.udp()
        road.tcp(81)
        (most, *_), rows = found(watch, road, lambda rows: len(rows) >= 2), watch.rows()
    assert most.packets == 30
    assert most.example == f"{road.a}:4000 > {road.b}:9"
    assert most.protocol == "UDP"
    assert most.interface == road.wire.b.name
    assert any(row.protocol == "TCP" and row.packets == 1 for row in rows)


def test_benign_drops_are_apart(road: Road) -> None:
    with Watch(Selection()) as without, Watch(Selection(benign=True)) as watch:
        unknown_ether_type(road)
        (row,) = found(watch, road, lambda rows: rows)
        assert row.kind == "benign"
        without.wait(0.05)
        assert not [row for row in without.rows() if row.namespace == road.server.netns]
        assert without.benign >= 1


def test_filters_by_interface_address_and_port(road: Road) -> None:
    def watch(**wanted: Any) -> list[Row]:
        with Watch(selection(**wanted)) as watch:
            for port in (9, 9, 9, 10):
                road.udp(port)
            watch.wait(0.1)
            hosts = (road.client.netns, road.server.netns)
            return [row for row in watch.rows() if row.namespace in hosts]

    name = f"{road.server.netns}/{road.wire.b.name}"
    assert sum(row.packets for row in watch(interfaces=[name])) == 4
    assert watch(interfaces=[f"{road.server.netns}/other"]) == []
    assert sum(row.packets for row in watch(ports=[9])) == 3
    assert sum(row.packets for row in watch(ports=[9, 10])) == 4
    assert watch(ports=[11]) == []
    assert sum(row.packets for row in watch(addresses=[road.a])) == 4
    assert sum(row.packets for row in watch(addresses=["203.0.113.0/24"])) == 0
    assert sum(row.packets for row in watch(addresses=[road.a], ports=[10])) == 1
    assert watch(wanted=["NETFILTER_DROP"]) == []


def test_what_was_not_looked_at_is_counted(road: Road) -> None:
    here = selection(interfaces=[f"{road.server.netns}/{road.wire.b.name}"])
    with Watch(here) as watch:
        for _ in range(3000):
            road.udp()
        found(watch, road, lambda rows: rows and rows[0].packets == 3000)
        assert 2000 < watch.missed <= 3000
        assert watch.lost == {"frames": 0, "places": 0}
    with Watch(here, every_frame=True) as watch:
        for _ in range(3000):
            road.udp()
        found(watch, road, lambda rows: rows and rows[0].packets == 3000)
        assert watch.missed < 3000
        assert watch.cost().process >= 0


def test_own_cost_is_measured(road: Road) -> None:
    with Watch(Selection()) as watch:
        for _ in range(200):
            road.udp()
            if watch.cost().per_drop is not None:
                break
            # It is measured for the last moments of a wait, so somebody must send in them.
            sender = subprocess.Popen(
                [sys.executable, "-c", SENDER, road.client.netns, road.b], stdin=subprocess.PIPE
            )
            watch.wait(0.2)
            sender.communicate()
        per_drop = watch.cost().per_drop
    assert per_drop is not None
    assert 0 < per_drop < 100_000


SENDER = """
import os, socket, sys, time
from millrace.lab import syscalls
fd = os.open("/run/netns/" + sys.argv[1], os.O_RDONLY)
syscalls.set_network_namespace(fd)
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 0.5
while time.monotonic() < end:
    try:
        one.sendto(b"x", (sys.argv[2], 9))
    except OSError:
        pass
"""


def test_own_stacks_are_in_the_list(watched: Callable[..., Any]) -> None:
    program = watched()
    with Watch(Selection()) as watch:
        program.do("nobody = client.datagram(); nobody.send(b'x', ('192.0.2.2', 99)); turn()")
        for _ in range(60):
            program.do("[turn() for _ in range(20)]")
            watch.wait(0.05)
            rows = [row for row in watch.rows() if row.source != "kernel"]
            if rows:
                break
    (row,) = [row for row in rows if row.reason == "drop_udp_no_socket"]
    assert row.source.endswith(f":{program.process.pid}")
    assert row.where == "memory:wire"
    assert row.packets == 1
    assert "no socket has the UDP port" in row.why


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MILLRACE, "drops", *words], capture_output=True, text=True, timeout=60, **options
    )


def test_the_command_keeps_frames_that_tcpdump_reads(road: Road, tmp_path: Path) -> None:
    file, rows = tmp_path / "drops.pcapng", tmp_path / "rows.json"
    where = f"{road.server.netns}/{road.wire.b.name}"
    process = subprocess.Popen(
        [*MILLRACE, *f"drops -i {where} -w {file} --json {rows} --seconds 1".split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stderr is not None
    assert b"watching" in process.stderr.readline()
    for _ in range(20):
        road.udp(9, b"dropped")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    shown = subprocess.run(["tcpdump", "-nr", file], capture_output=True, text=True, check=True)
    assert shown.stdout.count(f"{road.a}.4000 > {road.b}.9: UDP, length 7") == 20
    (row,) = json.loads(rows.read_text())
    assert (row["reason"], row["packets"], row["interface"]) == ("NO_SOCKET", 20, where)
    assert b"nobody listens on that port" in out
    assert b"start the server" in out
    assert b"NO_SOCKET at " in file.read_bytes()
    assert b"frames of 0 drops were not looked at" in said


def test_without_drops_it_says_so() -> None:
    done = run("--seconds", "0.2", "-i", "nosuch0")
    assert done.returncode == 0
    assert "no fitting packets were dropped in 0." in done.stdout


def test_without_root_it_says_what_root_would_add(tmp_path: Path) -> None:
    done = run("--seconds", "0.1", preexec_fn=powerless, cwd="/", env=as_nobody(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "the kernel's drops were not seen" in done.stderr
    assert "run as root" in done.stderr


def as_nobody(folder: Path) -> dict[str, str]:
    return {**os.environ, "MILLRACE_RUN_DIR": str(folder)}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--address", "192.0.2.0/99"], "no address and no network"),
        (["--port", "0"], "1 to 65535"),
        (["--reason", "SOCKET_RCV"], "did you mean SOCKET_RCVBUFF"),
        (["--reason", "NONSENSE"], "--explain lists them"),
        (["-w", "/nosuch/file"], "No such file"),
        (["--json", "/nosuch/file", "--seconds", "0.1"], "No such file"),
        (["--explain", "NONSENSE"], "--explain all lists them"),
    ],
)
def test_wrong_options_are_refused_in_one_line(words: list[str], why: str) -> None:
    done = run(*words)
    assert done.returncode == 1
    assert why in done.stderr
    assert done.stderr.count("\n") <= 2


def test_a_full_disk_is_an_error(road: Road) -> None:
    done = run("-w", "/dev/full", "--seconds", "0.1")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


def test_reasons_are_explained() -> None:
    done = run("--explain", "socket_rcvbuff")
    assert "receive buffer is full" in done.stdout
    assert "SO_RCVBUF" in done.stdout
    every = run("--explain", "all").stdout
    assert every.count("\n") >= len(reasons.KERNEL)


def test_every_reason_of_this_kernel_has_words() -> None:
    from millrace._native import drop_reasons

    known = {name for number, name in drop_reasons().items() if 0 < number < 0xFFFF}
    assert known - {"MAX"} <= set(reasons.KERNEL)


def test_a_reason_may_be_written_as_the_kernel_does() -> None:
    assert drops.selection(wanted=["skb_drop_reason_no_socket"]).reasons == ("NO_SOCKET",)
