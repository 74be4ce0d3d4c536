"""A wire carries traffic, and is shaped as it was asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest

from millrace.lab import Host, Lab, LabError, Wire, ethtool

pytestmark = pytest.mark.networks


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host, Wire]:
    client, server = lab.host("client"), lab.host("server")
    return client, server, lab.wire(client, server)


def test_ping(pair: tuple[Host, Host, Wire]) -> None:
    client, _, wire = pair
    result = client.run(["ping", "-c", "3", "-i", "0.01", "-W", "5", wire.b.ip])
    assert "3 received" in result.stdout


def test_tcp_both_ways(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    with server.enter():
        listener = socket.create_server((wire.b.ip, 80))
    payload = os.urandom(1 << 20)

    def echo() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=echo)
    thread.start()
    with client.enter():
        connection = socket.create_connection((wire.b.ip, 80), timeout=30)
    got = bytearray()
    with listener, connection:
        sender = threading.Thread(target=lambda: connection.sendall(payload))
        sender.start()
        while len(got) < len(payload) and (data := connection.recv(1 << 16)):
            got += data
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        thread.join()
    assert got == payload


def test_hosts_see_only_their_own_interfaces(pair: tuple[Host, Host, Wire]) -> None:
    client, _, _ = pair
    assert sorted(client.run(["ls", "/sys/class/net"]).stdout.split()) == ["eth0", "lo"]
    assert sorted(client.call(lambda: [name for _, name in socket.if_nameindex()])) == [
        "eth0",
        "lo",
    ]


def test_ends_are_described_as_the_kernel_has_them(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    assert (wire.a.host, wire.b.host) == (client, server)
    assert (wire.a.address, wire.b.address) == ("192.0.2.1/24", "192.0.2.2/24")
    for end in (wire.a, wire.b):
        shown = end.host.run(["ip", "addr", "show", end.name]).stdout
        assert f"{end.ifindex}: {end.name}@" in shown
        assert end.mac in shown
        assert f"inet {end.address}" in shown
        assert "mtu 1500" in shown
        assert end.host.interfaces == [end]


@pytest.mark.parametrize("queues", [1, 2, 5])
def test_queues(lab: Lab, queues: int) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), queues=queues)
    for end in (wire.a, wire.b):
        assert end.queues == queues
        with end.host.enter():
            assert ethtool.queue_counts(end.name) == (queues, queues)
        shown = end.host.run(["ls", f"/sys/class/net/{end.name}/queues"]).stdout.split()
        expected = [f"{way}-{number}" for way in ("rx", "tx") for number in range(queues)]
        assert sorted(shown) == expected


def test_offloads_at_both_ends(lab: Lab) -> None:
    wanted = {"tso": False, "gro": True, "tx-udp-segmentation": False}
    wire = lab.wire(lab.host("a"), lab.host("b"), offloads=wanted)
    for end in (wire.a, wire.b):
        shown = end.host.run(["ethtool", "-k", end.name]).stdout
        assert "tcp-segmentation-offload: off" in shown
        assert "generic-receive-offload: on" in shown
        assert "tx-udp-segmentation: off" in shown
        assert end.offloads()["rx-gro"] is True


def test_offloads_of_one_end(pair: tuple[Host, Host, Wire]) -> None:
    _, _, wire = pair
    assert wire.a.offloads()["tx-checksum-ip-generic"] is True
    wire.a.set_offloads({"tx": False, "tso": False})
    assert wire.a.offloads()["tx-checksum-ip-generic"] is False
    assert wire.b.offloads()["tx-checksum-ip-generic"] is True


def test_offload_errors(pair: tuple[Host, Host, Wire]) -> None:
    _, _, wire = pair
    with pytest.raises(LabError, match="no offload 'warp'; it has: rx, tx"):
        wire.a.set_offloads({"warp": True})
    with pytest.raises(LabError, match="keeps the offload 'lro' off"):
        wire.a.set_offloads({"lro": True})
    wire.a.set_offloads({"lro": False})  # as it is: no error


def test_mtu_macs_names_and_addresses(lab: Lab) -> None:
    wire = lab.wire(
        lab.host("a"),
        lab.host("b"),
        mtu=9000,
        addresses=("10.1.0.1/16", None),
        macs=(None, "02:00:00:00:00:42"),
        names=("mill0", None),
    )
    assert (wire.a.name, wire.b.name) == ("mill0", "eth0")
    assert (wire.a.mtu, wire.b.mtu) == (9000, 9000)
    assert wire.b.mac == "02:00:00:00:00:42"
    assert (wire.a.ip, wire.b.address) == ("10.1.0.1", None)
    assert "inet" not in wire.b.host.run(["ip", "addr", "show", "eth0"]).stdout
    with pytest.raises(LabError, match="eth0 on host b has no address"):
        _ = wire.b.ip
    assert wire.address() == "10.1.0.2/16"


def test_second_wire_gets_another_network(lab: Lab) -> None:
    left, router, right = lab.host("left"), lab.host("router"), lab.host("right")
    first = lab.wire(left, router)
    second = lab.wire(router, right)
    assert first.network != second.network
    assert [end.name for end in router.interfaces] == ["eth0", "eth1"]
    router.sysctl("net.ipv4.ip_forward", 1)
    left.run(["ip", "route", "add", "default", "via", first.b.ip])
    right.run(["ip", "route", "add", "default", "via", second.a.ip])
    left.run(["ping", "-c", "1", "-W", "5", second.b.ip])


def test_networks_run_out() -> None:
    with Lab(addresses="192.0.2.0/30") as lab:
        a, b = lab.host("a"), lab.host("b")
        wire = lab.wire(a, b)
        with pytest.raises(LabError, match="already have an interface in each network"):
            lab.wire(a, b)
        with pytest.raises(LabError, match=r"all addresses of 192\.0\.2\.0/30 are taken"):
            wire.address()


def test_set_down_and_up(pair: tuple[Host, Host, Wire]) -> None:
    client, _, wire = pair
    wire.set_down()
    with client.enter(), pytest.raises(OSError, match="Network is unreachable"):
        socket.create_connection((wire.b.ip, 80), timeout=5)
    wire.set_up()
    client.run(["ping", "-c", "1", "-W", "5", wire.b.ip])
    wire.b.set_down()
    assert "NO-CARRIER" in client.run(["ip", "link", "show", "eth0"]).stdout


def test_no_noise_of_ipv6() -> None:
    for ipv6 in (False, True):
        with Lab(ipv6=ipv6) as lab:
            wire = lab.wire(lab.host("a"), lab.host("b"))
            shown = wire.a.host.run(["ip", "-6", "addr", "show", wire.a.name]).stdout
            assert ("fe80:" in shown) is ipv6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queues": 0}, "queues is a whole number from 1 to 4096, not 0"),
        ({"queues": True}, "queues is .* not True"),
        ({"mtu": 67}, "mtu is a whole number from 68 to 65535, not 67"),
        ({"mtu": 1500.5}, "mtu is .* not 1500.5"),
        ({"names": ("sixteen-letters-", None)}, "no interface name"),
        ({"names": ("a/b", None)}, "no interface name"),
        ({"names": ("lo", None)}, "already has an interface lo"),
        ({"macs": ("01:00:5e:00:00:01", None)}, "no unicast MAC"),
        ({"macs": ("mac", None)}, "no unicast MAC"),
        ({"addresses": ("192.0.2.1", None)}, "needs a prefix length"),
        ({"addresses": ("1.2.3.4.5/8", None)}, "no address with a prefix length"),
        ({"offloads": {"warp": True}}, "no offload 'warp'"),
    ],
)
def test_bad_options(lab: Lab, options: dict[str, object], message: str) -> None:
    a, b = lab.host("a"), lab.host("b")
    with pytest.raises(LabError, match=message):
        lab.wire(a, b, **options)  # type: ignore[arg-type]
    # Nothing is left of the attempt that a second one would trip over.
    lab.wire(a, b)


def test_remove(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    wire.remove()
    for host in (client, server):
        assert host.call(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
    wire.remove()


def test_capture_sees_traffic_in_both_directions(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    capture = server.popen(
        ["tcpdump", "-n", "-l", "-c", "2", "-i", wire.b.name, "icmp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in capture.stderr:
        if line.startswith("listening on"):
            break
    client.run(["ping", "-c", "1", "-W", "5", wire.b.ip])
    out, _ = capture.communicate()
    assert "ICMP echo request" in out
    assert "ICMP echo reply" in out


def test_an_ipv6_address_can_be_used_at_once() -> None:
    with Lab(ipv6=True) as lab:
        a, b = lab.host("a"), lab.host("b")
        wire = lab.wire(a, b, addresses=("2001:db8::1/64", "2001:db8::2/64"))
        for end in (wire.a, wire.b):
            with end.host.enter(), socket.socket(socket.AF_INET6) as listener:
                listener.bind((end.ip, 80))


def test_an_ipv6_address_in_a_lab_without_ipv6(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    with pytest.raises(LabError, match=r"host a has no IPv6 for 2001:db8::1/64.*Lab\(ipv6=True\)"):
        lab.wire(a, b, addresses=("2001:db8::1/64", "2001:db8::2/64"))
    assert lab.wire(a, b).a.name == "eth0"


def test_what_both_ends_have_is_a_pair(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    for wrong in (
        {"addresses": ("192.0.2.1/24",)},
        {"addresses": "192.0.2.1/24"},
        {"macs": "02:00:00:00:00:01"},
        {"names": "up"},
    ):
        (name,) = wrong
        with pytest.raises(LabError, match=f"{name} are a pair, one for each end"):
            lab.wire(a, b, **wrong)  # type: ignore[arg-type]


def test_a_core_is_for_the_middle(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"core is where the forwarder .* this wire has none"):
        lab.wire(lab.host("a"), lab.host("b"), core=0)
