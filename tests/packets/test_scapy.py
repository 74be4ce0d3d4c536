"""Scapy's own functions over our ports, and packets of ours in Scapy and dpkt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import dpkt
import pytest
from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.sendrecv import sniff

import millrace
import millrace.scapy
from millrace.lab import Lab

from .conftest import udp

SRP = """
import sys
from scapy.all import ARP, Ether, conf, srp
import millrace.scapy
conf.L2socket = getattr(millrace.scapy, sys.argv[4])
conf.verb = 0
request = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=sys.argv[2], psrc=sys.argv[3])
answered, unanswered = srp(request, iface=sys.argv[1], timeout=30, filter="arp")
for sent, received in answered:
    print(received[ARP].hwsrc, received.time >= sent.sent_time - 1)
"""


@pytest.mark.networks
@pytest.mark.parametrize("socket", ["L2Socket", "L2XdpSocket"])
def test_srp_asks_a_kernel_and_hears_it(lab: Lab, socket: str) -> None:
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b)
    arguments = [wire.a.name, wire.b.ip, wire.a.ip, socket]
    said = a.run([sys.executable, "-c", SRP, *arguments])
    assert said.stdout.split() == [wire.b.mac, "True"], said.stderr


SNIFF = """
import sys
from scapy.all import UDP, conf, sniff
import millrace.scapy
conf.L2socket = millrace.scapy.L2Socket
packets = sniff(
    iface=sys.argv[1], count=20, timeout=60, filter="udp dst port 53",
    started_callback=lambda: print("up", flush=True),
)
print(*(packet[UDP].sport for packet in packets))
print(type(packets[0].sniffed_on).__name__, all(packet.time > 1e9 for packet in packets))
"""


@pytest.mark.networks
def test_sniff_hears_what_comes_in_and_what_goes_out(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b)
    process = a.popen(
        [sys.executable, "-c", SNIFF, wire.a.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    with b.enter():
        port = millrace.open(f"af_packet:{wire.b.name}")
    with port:
        frames = [udp(number, port=53 + number % 2) for number in range(38)]
        assert port.send(frames, timeout=10) == 38
    # One goes out, by the kernel.
    send = (
        "import socket, sys\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'', (sys.argv[1], 53))"
    )
    a.run([sys.executable, "-c", send, wire.b.ip])
    out, errors = process.communicate(timeout=120)
    ports, rest = out.splitlines()
    assert ports.split()[:19] == [str(1024 + number) for number in range(0, 38, 2)], errors
    assert len(ports.split()) == 20
    assert rest.endswith("True")


SENDP = """
import sys
from scapy.all import Ether, IP, UDP, conf, sendp
import millrace.scapy
conf.L2socket = millrace.scapy.L2Socket
sendp([Ether() / IP() / UDP(sport=number) for number in range(10)], iface=sys.argv[1], verbose=0)
sendp(b"short", iface=sys.argv[1], verbose=0)
"""


@pytest.mark.networks
def test_sendp_sends(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b)
    with b.enter():
        port = millrace.open(f"af_packet:{wire.b.name}", filter="udp or ether[0:4] = 0x73686f72")
    with port:
        a.run([sys.executable, "-c", SENDP, wire.a.name])
        frames: list[bytes] = []
        while len(frames) < 11 and (batch := port.receive(30)):
            frames += batch.tolist()
    assert [Ether(frame)[UDP].sport for frame in frames[:10]] == list(range(10))
    assert frames[10] == b"short".ljust(60, b"\0")


def test_until_it_is_asked_for_scapy_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(conf.L2listen, "_before", lambda **options: made.append(options))
    conf.L2listen(iface="lo")
    assert made == [{"iface": "lo"}]


def test_a_socket_over_a_wire_in_memory(make_pair: Callable[..., Any]) -> None:
    options: dict[str, Any] = {"frames": 512, "hugepages": False}
    near = millrace.scapy.L2Socket(iface="memory:scapy", **options)
    far = millrace.scapy.L2Socket(iface="memory:scapy", filter="udp", **options)
    assert near.recv() is None
    near.send(Ether(udp(5, b"hello")))
    near.send(Ether(udp(6)[:20]))
    packets = sniff(opened_socket=far, count=1, timeout=60)
    assert bytes(packets[0]) == udp(5, b"hello")
    assert packets[0][UDP].sport == 1029
    assert not sniff(opened_socket=far, timeout=0.05)
    far.send(Ether(udp(7)))
    far.close()
    far.close()
    # What was sent before is still heard, then it ends.
    heard = sniff(opened_socket=near, timeout=60)
    assert [bytes(packet) for packet in heard] == [udp(7)]
    near.close()


def test_a_listener_sends_nothing() -> None:
    socket = millrace.scapy.L2ListenSocket(iface="memory:scapy-listen", frames=512, hugepages=False)
    with pytest.raises(Exception, match="sends nothing"):
        socket.send(Ether())
    socket.close()


def test_an_exception_filter_of_scapys_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "except_filter", "udp port 53")
    socket = millrace.scapy.L2Socket(
        iface="memory:scapy-except", filter="udp", frames=512, hugepages=False
    )
    other = millrace.open("memory:scapy-except", frames=512, hugepages=False)
    with other, socket:
        other.send([udp(1), udp(2, port=80)])
        packet = socket.recv()
        assert packet is not None
        assert packet[UDP].dport == 80
        assert socket.recv() is None


def test_scapy_and_dpkt_take_our_views(pair: Any) -> None:
    left, right = pair
    left.send([udp(1, b"hello"), udp(2, b"there", vlan=9)])
    batch = right.receive(0)
    packet = Ether(batch[0])
    assert packet[IP].src == "10.0.0.1"
    assert packet[UDP].load.rstrip(b"\0") == b"hello"
    assert Ether(bytes(batch[1]))[Dot1Q].vlan == 9
    ethernet = dpkt.ethernet.Ethernet(batch[0])
    assert ethernet.data.data.sport == 1025
    assert bytes(ethernet.data.data.data) == b"hello"
    assert [bytes(dpkt.ethernet.Ethernet(view).dst) for view in batch] == [b"\2\0\0\0\0\2"] * 2
