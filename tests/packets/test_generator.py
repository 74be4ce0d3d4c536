"""Generated packets are what was asked for, leave at the pace, and are metered on arrival."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

import millrace
from millrace.lab import Lab, Wire
from millrace.packets.generator import (
    IMIX,
    Cycle,
    Field,
    Generator,
    Meter,
    Random,
    Sequence,
    Template,
    Values,
    Weighted,
    Zipf,
    packet,
    parse,
    sender,
)

Pair = tuple[millrace.Port, millrace.Port]
ADDRESSES = {"source": "10.0.0.1", "destination": "10.0.0.2"}


def rendered(template: Template, count: int = 1, **options: Any) -> list[bytes]:
    return Generator(template, **options).render(count)


def as_scapy_sums_it(frame: bytes) -> bytes:
    """The frame with the lengths and checksums that Scapy finds right."""
    layers = Ether(frame)
    for layer in (IP, TCP, UDP, ICMP, IPv6):
        if layer in layers:
            for name in ("chksum", "cksum", "len", "plen"):
                if name in layers[layer].fields:
                    del layers[layer].fields[name]
    return bytes(layers)


@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")])
@pytest.mark.parametrize("vlan", [None, 7])
def test_lengths_and_checksums_are_right(
    protocol: str, addresses: tuple[str, str], vlan: int | None
) -> None:
    template = packet(
        source=addresses[0],
        destination=addresses[1],
        protocol=protocol,
        vlan=vlan,
        source_port=Random(1, 65535),
        destination_port=Sequence(1, 100),
        size=Cycle([90, 91, 400, 1514]),
        payload=Random(0, 2**63),
    )
    for frame, size in zip(rendered(template, 40), [90, 91, 400, 1514] * 10, strict=True):
        assert len(frame) == size
        assert as_scapy_sums_it(frame) == frame
        layers = Ether(frame)
        assert (layers[Dot1Q].vlan if Dot1Q in layers else None) == vlan
        ip = layers[IPv6] if IPv6 in layers else layers[IP]
        assert (ip.src, ip.dst) == addresses


def test_every_header_field_is_where_it_belongs() -> None:
    template = packet(
        **ADDRESSES,
        source_mac="02:00:00:00:00:07",
        destination_mac="02:00:00:00:00:08",
        vlan=100,
        protocol="tcp",
        tcp_flags="syn,ece",
        tcp_seq=Sequence(1000, 4000, 1000),
        source_port=1234,
        destination_port=Cycle([80, 443]),
        ttl=3,
        traffic_class=0xB8,
        size=100,
        payload=b"ab",
    )
    frames = [Ether(frame) for frame in rendered(template, 4)]
    assert [frame[TCP].seq for frame in frames] == [1000, 2000, 3000, 4000]
    assert [frame[TCP].dport for frame in frames] == [80, 443, 80, 443]
    first = frames[0]
    assert (first.src, first.dst) == ("02:00:00:00:00:07", "02:00:00:00:00:08")
    assert (first[Dot1Q].vlan, first[IP].ttl, first[IP].tos) == (100, 3, 0xB8)
    assert (str(first[TCP].flags), first[TCP].sport) == ("SE", 1234)
    assert bytes(first[TCP].payload) == b"ab" * 21
    six = packet(
        source="2001:db8::1",
        destination="2001:db8::2",
        traffic_class=3,
        flow_label=Sequence(0xABCDE, 0xABCDF),
        ttl=9,
        size=80,
    )
    shown = [Ether(frame)[IPv6] for frame in rendered(six, 2)]
    assert [(one.tc, one.fl, one.hlim) for one in shown] == [(3, 0xABCDE, 9), (3, 0xABCDF, 9)]


def test_addresses_and_any_bytes_vary() -> None:
    template = packet(
        source=parse("10.0.0.0/30"),
        destination=Sequence("10.1.0.9", "10.1.0.7", -1),
        source_mac=Sequence("02:00:00:00:00:01", "02:00:00:00:00:02"),
        size=64,
        fields=[Field(50, 2, Cycle([0xDEAD, 0xBEEF])), Field(60, 1, Sequence(1, 3), mask=0x30)],
        payload=b"\xff",
    )
    frames = rendered(template, 4)
    assert [Ether(frame)[IP].src for frame in frames] == [f"10.0.0.{n}" for n in range(4)]
    assert [Ether(frame)[IP].dst for frame in frames] == [f"10.1.0.{n}" for n in (9, 8, 7, 9)]
    assert [frame[11] for frame in frames] == [1, 2, 1, 2]
    assert [frame[50:52].hex() for frame in frames] == ["dead", "beef"] * 2
    assert [frame[60] for frame in frames] == [0xDF, 0xEF, 0xFF, 0xDF]


def test_chance_follows_its_law_and_its_seed() -> None:
    def ports(values: Values, count: int = 20_000) -> list[int]:
        frames = rendered(packet(**ADDRESSES, source_port=values), count)
        return [int.from_bytes(frame[34:36], "big") for frame in frames]

    flat = Counter(ports(Random(100, 109)))
    assert set(flat) == set(range(100, 110))
    assert max(flat.values()) < 1.2 * min(flat.values())
    zipf = Counter(ports(Zipf(1, 1000)))
    assert 1.7 < zipf[1] / zipf[2] < 2.3
    weighted = Counter(ports(Weighted({5: 3, 6: 1, 7: 0})))
    assert set(weighted) == {5, 6}
    assert 2.7 < weighted[5] / weighted[6] < 3.3
    assert ports(Random(1, 60000, seed=4), 50) == ports(Random(1, 60000, seed=4), 50)
    assert ports(Random(1, 60000, seed=4), 50) != ports(Random(1, 60000, seed=5), 50)


def test_the_internet_mix() -> None:
    sizes = Counter(map(len, rendered(packet(**ADDRESSES, size=IMIX), 120)))
    assert sizes == {60: 70, 590: 40, 1514: 10}


@given(st.data())
def test_what_a_command_takes_is_what_comes(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 2**32 - 300))
    last = first + data.draw(st.integers(0, 255))
    addresses = [str(ipaddress.IPv4Address(number)) for number in range(first, last + 1)]
    texts = [f"{addresses[0]}-{addresses[-1]}", ",".join(addresses)]
    for text in texts:
        values = parse(text)
        template = packet(
            source=values if isinstance(values, Values) else addresses[0],
            destination="10.0.0.1",
        )
        found = [
            str(ipaddress.IPv4Address(frame[26:30])) for frame in rendered(template, len(addresses))
        ]
        assert found == addresses


def test_values_as_people_write_them() -> None:
    assert parse("10.0.0.1") == "10.0.0.1"
    assert parse("02:00:00:00:00:01") == "02:00:00:00:00:01"
    assert parse("1-5") == Sequence("1", "5")
    assert parse("10.0.0.0/24") == Sequence(
        ipaddress.ip_address("10.0.0.0"), ipaddress.ip_address("10.0.0.255")
    )
    assert parse("2001:db8::1-2001:db8::9") == Sequence("2001:db8::1", "2001:db8::9")
    assert parse("random:1024-65535") == Random("1024", "65535")
    assert parse("zipf@1.2:1-9") == Zipf("1", "9", 1.2)
    assert parse("60*7,1514*1") == Weighted({"60": 7.0, "1514": 1.0})
    for text in ("x", "1-x", "10.0.0.1/24", "random:7", "zipf@x:1-2", "random@1:1-2", "", "1*x"):
        with pytest.raises(ValueError, match=r"is no|is followed by|no exponent"):
            parse(text)


def test_what_makes_no_sense() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"size": 13}, "frames of 13 to 13 bytes: a frame has 14 bytes at least"),
        ({"size": 0}, "a frame has 14 bytes at least"),
        ({"size": 30}, "shorter than their headers"),
        ({"size": 70000}, "at most 65557 bytes, not 70000"),
        ({"source_port": 65536}, "source_port is 0 to 65535"),
        ({"source_port": Sequence(65000, 66000)}, "holds 0 to 65535"),
        ({"ttl": -1}, "ttl is 0 to 255"),
        ({"vlan": 4096}, "vlan is 0 to 4095"),
        ({"source": "2001:db8::1"}, "not of one version of IP"),
        ({"source": "host.example"}, "is no IP address"),
        ({"protocol": "gre"}, "protocol is"),
        ({"protocol": "tcp", "tcp_flags": "syn,x"}, "TCP's flags are"),
        ({"flow_label": 1}, "IPv4 has no flow label"),
        ({"source_port": Sequence(9, 1)}, "no steps of 1 lead from 9 to 1"),
        ({"source_port": Zipf(9, 1)}, "by Zipf's law"),
        ({"source_port": Weighted({1: 0})}, "weights are"),
        ({"fields": [Field(59, 2, Sequence(1, 2))]}, "no part of frames of 60 bytes"),
        ({"fields": [Field(50, 17, Sequence(1, 2))]}, "1 to 16 bytes"),
        ({"fields": [Field(50, 1, Sequence(1, 2), mask=0x11)]}, "no run of bits"),
    ]
    for options, text in cases:
        with pytest.raises(ValueError, match=text):
            Generator(packet(**{**ADDRESSES, **options}))
    template = packet(**ADDRESSES)
    for options, text in (
        ({"packets_per_s": 1.0, "bits_per_s": 1.0}, "not both"),
        ({"packets_per_s": 0.0}, "above 0"),
        ({"bits_per_s": float("nan")}, "above 0"),
        ({"burst": 0}, "burst"),
        ({"batch": 65}, "batch"),
        ({"stream": 65536}, "a stream is 0 to 65535"),
        ({"seconds": -1.0}, "seconds"),
    ):
        with pytest.raises(ValueError, match=text):
            Generator(template, **options)
    with pytest.raises(ValueError, match=r"no room for a stamp of 16 bytes .* make them 70 bytes"):
        Generator(packet(**ADDRESSES, protocol="tcp"), stream=1)
    with pytest.raises(ValueError, match="has one at least"):
        Cycle([])


def test_it_sends_as_many_as_it_was_told_and_the_meter_sees_them_all(pair: Pair) -> None:
    left, right = pair
    with Meter(right, packets=1000) as meter:
        report = Generator(packet(**ADDRESSES, size=80), packets=1000, stream=7).run(left)
    assert (report.packets, report.bytes, report.lost) == (1000, 80_000, 0)
    seen = meter.result()
    assert (seen.stamped, seen.unstamped, seen.other_streams) == (1000, 0, 0)
    (stream,) = seen.streams
    assert (stream.stream, stream.received, stream.unique, stream.bytes) == (7, 1000, 1000, 80_000)
    assert (stream.lost, stream.reordered, stream.duplicated, stream.late) == (0, 0, 0, 0)
    assert (stream.first, stream.last) == (0, 999)
    assert stream.negative == 0
    assert sum(count for _, count in stream.histogram) == 1000
    latencies = list(stream.latency_ns.values())
    assert latencies == sorted(latencies)
    assert 0 < latencies[0] <= stream.latency_mean_ns <= latencies[-1]


def test_loss_order_and_doubles_are_told(pair: Pair) -> None:
    left, right = pair
    frames = Generator(packet(**ADDRESSES, size=80), stream=1).render(10)
    others = Generator(packet(**ADDRESSES, size=80)).render(2)
    # 3 and 7 are lost, 5 comes after 6, 8 comes twice.
    order = [0, 1, 2, 4, 6, 5, 8, 8, 9]
    left.send([*(frames[number] for number in order), *others])
    left.close()
    report = Meter(right, packets=9).run()
    (stream,) = report.streams
    assert (stream.received, stream.unique, stream.lost) == (9, 8, 2)
    assert (stream.reordered, stream.duplicated) == (1, 1)


def test_a_pace_is_kept(pair: Pair) -> None:
    left, right = pair
    seen: list[int] = []
    thread = threading.Thread(target=lambda: Meter(right, packets=200).run())
    thread.start()
    report = Generator(packet(**ADDRESSES), packets=200, packets_per_s=2000, stream=0).run(
        left, lambda progress: seen.append(progress["packets"]), interval=0.02
    )
    thread.join()
    # A machine that is too slow takes longer, and says what it gave up.
    assert report.seconds > 0.09
    assert report.packets == 200
    assert seen[-1] == 200
    assert seen == sorted(seen)


def test_it_ends_when_it_is_told_and_when_its_port_is_closed(pair: Pair) -> None:
    left, right = pair
    generator = Generator(packet(**ADDRESSES), packets_per_s=1000)
    report = generator.run(left, lambda _: generator.stop(), interval=0.01)
    assert report.packets > 0
    left.close()
    with pytest.raises(OSError, match="is closed"):
        Generator(packet(**ADDRESSES)).run(left)
    right.close()


def test_a_port_takes_no_packet_that_is_too_long(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"a packet of the template has 1600 bytes"):
        Generator(packet(**ADDRESSES, size=1600)).run(pair[0])


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """A wire that carries nothing by itself."""
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    return wire


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["af_packet", "af_xdp", "xdp_live"])
def test_every_way_out_carries_the_same_packets(wire: Wire, kind: str) -> None:
    template = packet(
        source=Random("10.0.0.0", "10.0.255.255"),
        destination="10.1.0.1",
        size=Cycle([60, 200, 1514]),
    )
    wanted = rendered(template, 200)
    with wire.b.host.enter():
        # An XDP program at the other end makes a veth take redirected frames.
        other = millrace.open(f"af_xdp:{wire.b.name}")
    with other, wire.a.host.enter():
        with sender(f"{kind}:{wire.a.name}") as port:
            assert port.kind == kind
            report = Generator(template, packets=200).run(port)
        assert (report.packets, report.bytes) == (200, sum(map(len, wanted)))
        found: list[bytes] = []
        while len(found) < 200 and (batch := other.receive(10)):
            found += batch.tolist()
        assert found == wanted


@pytest.mark.networks
def test_the_fastest_way_out_is_chosen_and_told(wire: Wire) -> None:
    with wire.a.host.enter():
        with sender(wire.a.name) as port:
            assert port.kind == "af_xdp"
            assert "live frames are faster, but" in port.facts["chosen"]
            # Linux keeps all that comes in.
            assert "Linux keeps" in port.facts["steering"]
        with sender(wire.a.name, packets_per_s=100) as port:
            assert port.kind == "af_packet"
        with wire.b.host.enter():
            other = millrace.open(f"af_xdp:{wire.b.name}")
        with other, sender(wire.a.name) as port:
            assert port.kind == "xdp_live"
            assert "the fastest" in port.facts["chosen"]
            with pytest.raises(OSError, match="only sends"):
                port.receive(0)
        with pytest.raises(FileNotFoundError, match="nosuch"):
            sender("nosuch")


@pytest.mark.networks
def test_the_kernel_repeats_packets_by_itself(wire: Wire) -> None:
    template = packet(source=Sequence("10.0.0.1", "10.0.0.4"), destination="10.1.0.1")
    with wire.b.host.enter():
        other = millrace.open(f"af_xdp:{wire.b.name}")
    with other, wire.a.host.enter(), sender(f"xdp_live:{wire.a.name}") as port:
        generator = Generator(template, packets=100)
        assert generator.period == 4
        report = generator.run(port)
        assert (report.packets, report.bytes, report.repeated) == (100, 6000, True)
        found: list[bytes] = []
        while len(found) < 100 and (batch := other.receive(10)):
            found += batch.tolist()
        assert found == rendered(template, 4) * 25


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["af_packet", "af_xdp", "xdp_live"])
def test_an_interface_that_goes_is_told(wire: Wire, kind: str) -> None:
    with wire.b.host.enter():
        other = millrace.open(f"af_xdp:{wire.b.name}")
    with wire.a.host.enter():
        port = sender(f"{kind}:{wire.a.name}")
    generator = Generator(packet(**ADDRESSES), packets_per_s=5000)
    gone: list[bool] = []

    def go(_: object) -> None:
        if not gone:
            gone.append(True)
            wire.a.set_down()

    with other, port, pytest.raises(OSError, match=f"{wire.a.name} is (down|gone)"):
        generator.run(port, go, interval=0.02)
