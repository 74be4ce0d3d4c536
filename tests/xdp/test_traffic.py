"""Programs at work between virtual hosts: dropping, reflecting, redirecting."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import frames
import pytest

import millrace
from millrace import xdp
from millrace.lab import Host, Lab, Wire
from millrace.xdp import (
    ABORTED,
    DROP,
    PASS,
    TX,
    Array,
    Counter,
    CpuMap,
    DevMap,
    IPv4,
    PerCpuArray,
    XskMap,
)

pytestmark = [pytest.mark.kernel, pytest.mark.networks]


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host, Wire]:
    client, server = lab.host("client"), lab.host("server")
    # A kernel peer on veth would leave checksums for later, which no program can know.
    return client, server, lab.wire(client, server, offloads={"tx": False})


@xdp
def passing(pkt: Any) -> Any:
    """A veth takes redirected frames only if its peer has a program too."""
    return PASS


def settled(read: Callable[[], int], wanted: int) -> int:
    """What is read once it is what it should become; what it is in the end where it does not."""
    for _ in range(2000):
        if read() == wanted:
            break
        os.sched_yield()
        subprocess.run(["true"], check=True)
    return read()


def echo(host: Host, address: str, port: int, sport: int = 0) -> tuple[bytes, Any]:
    """Send a datagram and receive the answer."""
    with host.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("", sport))
        asking.settimeout(30)
        asking.sendto(b"hello", (address, port))
        return asking.recvfrom(100)


def test_reflector_answers_a_kernel(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair

    @xdp(on_error=ABORTED)
    def reflector(pkt: Any) -> Any:
        if pkt.ip and pkt.udp and pkt.udp.dport == 7:
            pkt.eth.src, pkt.eth.dst = pkt.eth.dst, pkt.eth.src
            pkt.ip.src, pkt.ip.dst = pkt.ip.dst, pkt.ip.src
            pkt.udp.sport, pkt.udp.dport = pkt.udp.dport, pkt.udp.sport
            pkt.ip.ttl = 33
            pkt.udp.payload[0] = pkt.udp.payload[0]
            return TX
        return PASS

    with client.enter():
        keep = passing.attach(wire.a.name)
    with server.enter(), reflector.attach(wire.b.name):
        data, source = echo(client, wire.b.ip, 7)
    assert (data, source) == (b"hello", (wire.b.ip, 7))
    keep.close()


def test_translated_address_reaches_a_kernel(pair: tuple[Host, Host, Wire]) -> None:
    """Destination NAT and back, in one program on the server's interface: both checksums of both
    directions must satisfy two kernels.
    """
    client, server, wire = pair
    service, backend = "198.51.100.1", wire.b.ip
    backends = Array(1, IPv4)
    backends[0] = backend
    server_side, answered = Counter(), Counter()

    @xdp
    def incoming(pkt: Any) -> Any:
        if pkt.udp and pkt.ip and pkt.ip.dst == service:
            pkt.ip.dst = backends[0]
            pkt.udp.dport += 1000
            server_side.add()
        return PASS

    @xdp
    def outgoing(pkt: Any) -> Any:
        if pkt.udp and pkt.ip and pkt.ip.src == backend and pkt.udp.sport == 1053:
            pkt.ip.src = service
            pkt.udp.sport -= 1000
            answered.add()
        return PASS

    client.run(["ip", "route", "add", service, "via", wire.b.ip])
    with client.enter():
        one = outgoing.attach(wire.a.name)
    with server.enter():
        two = incoming.attach(wire.b.name)
        serving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with serving:
        serving.bind((wire.b.ip, 1053))
        serving.settimeout(30)
        with client.enter():
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(30)
            for size in range(40):
                asking.sendto(bytes(range(size)), (service, 53))
                data, source = serving.recvfrom(100)
                assert data == bytes(range(size))
                serving.sendto(data + b"!", source)
                assert asking.recvfrom(100) == (data + b"!", (service, 53))
    assert (int(server_side), int(answered)) == (40, 40)
    one.close()
    two.close()


def test_frames_are_redirected_to_another_interface(lab: Lab) -> None:
    left, middle, right = lab.host("left"), lab.host("middle"), lab.host("right")
    first = lab.wire(left, middle, addresses=("192.0.2.1/24", None), offloads={"tx": False})
    second = lab.wire(middle, right, addresses=(None, "192.0.2.2/24"), offloads={"tx": False})
    interfaces, by_queue = DevMap(4), DevMap(1)
    seen = PerCpuArray(2)

    @xdp
    def to_right(pkt: Any) -> Any:
        seen[0] += 1
        return interfaces.redirect(2, DROP)

    @xdp
    def to_left(pkt: Any) -> Any:
        seen[1] += 1
        return by_queue.redirect(pkt.queue)

    keep = []
    with left.enter():
        keep.append(passing.attach(first.a.name))
    with right.enter():
        keep.append(passing.attach(second.b.name))
    with middle.enter():
        interfaces[2] = second.a.name
        by_queue[0] = first.b.ifindex
        keep += [to_right.attach(first.b.name), to_left.attach(second.a.name)]
    result = left.run(["ping", "-c", "5", "-i", "0.01", "-W", "5", "192.0.2.2"])
    assert "5 received" in result.stdout
    assert seen[0] >= 5
    assert seen[1] >= 5
    with middle.enter():
        del interfaces[2]
    result = left.run(["ping", "-c", "1", "-W", "1", "192.0.2.2"], check=False)
    assert "0 received" in result.stdout
    for link in keep:
        link.close()


def test_redirect_by_name(lab: Lab) -> None:
    left, middle, right = lab.host("left"), lab.host("middle"), lab.host("right")
    first = lab.wire(left, middle, names=("eth0", "west"), addresses=("192.0.2.1/24", None))
    second = lab.wire(middle, right, names=("east", "eth0"), addresses=(None, "192.0.2.2/24"))

    @xdp
    def eastwards(pkt: Any) -> Any:
        return xdp.redirect("east")

    index = first.b.ifindex

    @xdp
    def westward(pkt: Any) -> Any:
        return xdp.redirect(index)

    keep = []
    with left.enter():
        keep.append(passing.attach(first.a.name))
    with right.enter():
        keep.append(passing.attach(second.b.name))
    with middle.enter():
        keep += [eastwards.attach("west"), westward.attach("east")]
    assert "index of east" in eastwards.explain()
    result = left.run(["ping", "-c", "3", "-i", "0.01", "-W", "5", "192.0.2.2"])
    assert "3 received" in result.stdout
    for link in keep:
        link.close()


def test_frames_are_redirected_to_a_cpu(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    processors = CpuMap(4)
    processors[0] = 128
    sent = Counter()

    @xdp
    def program(pkt: Any) -> Any:
        sent.add()
        return processors.redirect(0, DROP)

    with server.enter(), program.attach(wire.b.name):
        result = client.run(["ping", "-c", "5", "-i", "0.01", "-W", "5", wire.b.ip])
        assert "5 received" in result.stdout
        assert int(sent) >= 5
        del processors[0]
        result = client.run(["ping", "-c", "1", "-W", "1", wire.b.ip], check=False)
        assert "0 received" in result.stdout


def test_frames_are_redirected_to_a_port(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    sockets = XskMap(4)

    @xdp
    def program(pkt: Any) -> Any:
        if pkt.udp and pkt.udp.dport == 4242:
            return sockets.redirect(pkt.queue)
        return PASS

    name = f"af_xdp:{wire.b.name}#0"
    with server.enter(), millrace.open(name, attach=False) as port:
        assert "another program" in port.facts["steering"]
        assert 0 not in sockets
        sockets[0] = port
        assert 0 in sockets
        with program.attach(wire.b.name):
            with client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for number in (4242, 4243, 4242):
                    sender.sendto(f"to {number}".encode(), (wire.b.ip, number))
            got: list[bytes] = []
            while len(got) < 2:
                batch = port.receive(timeout=10)
                assert batch is not None
                got += [bytes(frame)[42:] for frame in batch]
            assert got == [b"to 4242"] * 2
            result = client.run(["ping", "-c", "1", "-W", "5", wire.b.ip])
            assert "1 received" in result.stdout
            assert port.stats()["rx_packets"] == 2
            del sockets[0]
            assert 0 not in sockets


def test_a_port_without_a_program_has_no_filter(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    with server.enter(), pytest.raises(ValueError, match="attach=False"):
        millrace.open(f"af_xdp:{wire.b.name}#0", attach=False, filter="udp")


def test_both_arms_drop_the_same(pair: tuple[Host, Host, Wire]) -> None:
    """Ours and clang's program drop as many of the same frames, and count them alike."""
    from millrace.bench import xdp as bench
    from millrace.bench.xdp_programs import PROGRAMS

    if not bench.have_clang():
        pytest.skip("needs clang")
    client, server, wire = pair
    given = [frames.udp4(port) for port in (9, 10)] + [frames.tcp4(9), frames.udp6(9)]
    given += [frames.udp4(9, 5, bytes(18), 7), frames.arp()]
    for arm in (bench.python_arm(PROGRAMS["shield"]), bench.clang_arm("shield")):
        with server.enter():
            link = arm.attach(wire.b.ifindex, "native")
        before, counted_before = bench.xdp_drops(server, wire.b.name), bench.total(arm.maps[0])
        bench.send(client, wire.a.name, given * 50)
        drops = settled(lambda b=before: bench.xdp_drops(server, wire.b.name) - b, 100)  # type: ignore[misc]
        assert drops == bench.total(arm.maps[0]) - counted_before == 100
        link.detach()
