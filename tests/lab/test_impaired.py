"""Two kernels on a wire on which something goes wrong."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from millrace.lab import Host, Lab, LabError, Statistics, Wire, leftovers
from millrace.lab.impaired import ImpairedWire

pytest.importorskip("millrace._native")
pytestmark = pytest.mark.networks


def pair(lab: Lab) -> tuple[Host, Host]:
    return lab.host("a"), lab.host("b")


def ping(host: Host, ip: str, count: int, interval: float = 0.002) -> tuple[int, float, float]:
    """How many answers came, and the least and the mean round-trip time in seconds."""
    args = ["ping", "-q", "-c", str(count), "-i", str(interval), "-W", "2", ip]
    out = host.run(args, check=False).stdout
    received = int(out.partition(" received")[0].rpartition(" ")[2])
    times = out.partition("mdev = ")[2].split("/")
    least, mean = (float(times[0]), float(times[1])) if received else (0.0, 0.0)
    return received, least / 1e3, mean / 1e3


def blast(wire: Wire, count: int, size: int = 1000, pause: float = 0.0) -> list[bytes]:
    """Send so many numbered datagrams from a to b; give those that arrive, in order of arrival."""
    with wire.b.host.enter():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with wire.a.host.enter():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    got: list[bytes] = []
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        receiver.bind((wire.b.ip, 9))
        # The first datagrams would be lost while Linux asks for the hardware address.
        ping(wire.a.host, wire.b.ip, 3)
        for number in range(count):
            sender.sendto(number.to_bytes(4, "big") + bytes(size - 4), (wire.b.ip, 9))
            if pause:
                time.sleep(pause)
        receiver.settimeout(0.5)
        try:
            while True:
                got.append(receiver.recv(2048))
        except TimeoutError:
            return got


def numbers(datagrams: list[bytes]) -> list[int]:
    return [int.from_bytes(datagram[:4], "big") for datagram in datagrams]


def assert_conserved(statistics: Statistics) -> None:
    offered = statistics.lost + statistics.queue_dropped + statistics.forwarded
    assert statistics.offered == offered
    assert statistics.forwarded + statistics.duplicated == statistics.sent + statistics.in_flight
    assert not any(statistics.failures.values())


def test_a_delay_is_kept(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, delay=("20ms", "10ms"))
    received, least, mean = ping(a, wire.b.ip, 10)
    assert received == 10
    assert least >= 0.030
    # The first answer waits for the hardware address, which is another round trip.
    assert mean < 0.030 + 0.003 + 0.010
    for statistics in wire.statistics():
        assert_conserved(statistics)
        assert statistics.forwarded >= 10


def test_a_wire_that_is_hardly_impaired_is_fast(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, seed=1)
    _, least, _ = ping(a, wire.b.ip, 50)
    assert least < 0.001


def test_losses_are_those_of_the_seed(lab: Lab) -> None:
    a, b = pair(lab)
    arrived = []
    for seed in (1, 1, 2):
        wire = lab.wire(a, b, loss=("10%", 0), seed=seed)
        arrived.append(numbers(blast(wire, 2000, size=100)))
        forth, back = wire.statistics()
        assert_conserved(forth)
        assert_conserved(back)
        assert forth.lost > 0
        assert back.lost == 0
        assert abs(forth.lost - forth.offered / 10) < 5 * (forth.offered * 0.09) ** 0.5
        wire.remove()
    assert all(2000 - len(numbers) == pytest.approx(200, abs=70) for numbers in arrived)
    assert arrived[0] != arrived[2]


def test_duplicates_and_reordering(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, duplicate="10%", reorder="10%", reorder_delay="5ms", delay="1ms")
    got = numbers(blast(wire, 2000, size=100))
    forth, _ = wire.statistics()
    assert_conserved(forth)
    assert set(got) == set(range(2000))
    assert len(got) - 2000 == pytest.approx(200, abs=70)
    overtaken = sum(one > next for one, next in itertools.pairwise(got))
    assert overtaken > 50
    assert forth.reordered == pytest.approx(200, abs=70)
    assert forth.late < 100


def test_damage_is_seen_by_the_receiver(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, corrupt=(1.0, 0))
    # Neither an ARP request nor an IP packet gets through as it was.
    assert ping(a, wire.b.ip, 20)[0] < 3
    forth, back = wire.statistics()
    assert forth.corrupted == forth.forwarded > 0
    assert back.corrupted == 0


def test_packets_are_as_on_a_cable(lab: Lab) -> None:
    """Cut to the MTU, with checksums: what a capture between the kernels shows."""
    a, b = pair(lab)
    wire = lab.wire(a, b, delay="1ms")
    capture = b.popen(
        ["tcpdump", "-n", "-v", "-c", "60", "-i", wire.b.name, "tcp and src", wire.a.ip],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert capture.stderr is not None
    for line in capture.stderr:
        if "listening on" in line:
            break
    assert transfer(wire, 1 << 20) == 1 << 20
    out, _ = capture.communicate(timeout=20)
    assert "incorrect" not in out
    packets = [line for line in out.splitlines() if "proto TCP" in line]
    lengths = [int(line.rpartition("length ")[2].strip(")")) for line in packets]
    assert max(lengths) == 1500


def transfer(wire: Wire, total: int) -> int:
    """Move so many bytes from a to b by the kernels' TCP; how many arrived as they were sent."""
    with wire.b.host.enter():
        listener = socket.create_server((wire.b.ip, 80))
    data = os.urandom(1 << 16)

    def send() -> None:
        with wire.a.host.enter():
            connection = socket.create_connection((wire.b.ip, 80), timeout=30)
        with connection:
            for at in range(0, total, len(data)):
                connection.sendall(data[: total - at])

    thread = threading.Thread(target=send)
    thread.start()
    right = 0
    with listener:
        connection, _ = listener.accept()
        with connection:
            while piece := connection.recv(1 << 20):
                for at in range(0, len(piece), len(data)):
                    part = piece[at : at + len(data)]
                    start = right % len(data)
                    if part == (data + data)[start : start + len(part)]:
                        right += len(part)
    thread.join()
    return right


def test_a_rate_is_reached_and_kept(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, rate="50M", delay="5ms", queue="1bdp")
    begun = time.monotonic()
    total = 8 << 20
    assert transfer(wire, total) == total
    rate = total * 8 / (time.monotonic() - begun)
    # 50 Mbit/s of frames are 47.8 Mbit/s of payload; slow start takes some round trips.
    assert 40e6 < rate < 48e6
    forth, back = wire.statistics()
    assert_conserved(forth)
    assert_conserved(back)


def test_a_bad_wire_delivers_every_byte(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(
        a,
        b,
        loss="1%",
        burst=3,
        duplicate="1%",
        corrupt="0.2%",
        reorder="2%",
        reorder_delay="2ms",
        jitter="500us",
        jitter_reorders=True,
        rate="200M",
        delay="1ms",
    )
    assert transfer(wire, 1 << 20) == 1 << 20
    forth, back = wire.statistics()
    assert_conserved(forth)
    assert_conserved(back)
    assert min(forth.lost, forth.duplicated, forth.corrupted, forth.reordered) > 0


def test_a_wire_can_change(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, seed=0)
    assert ping(a, wire.b.ip, 3)[0] == 3
    wire.impair(loss=1)
    assert ping(a, wire.b.ip, 1)[0] == 0
    wire.impair(delay="30ms")
    received, least, _ = ping(a, wire.b.ip, 3)
    assert received == 3
    assert least >= 0.060
    with pytest.raises(LabError, match="loss is a probability"):
        wire.impair(loss=7)


def test_an_end_that_is_down_is_behind_the_middle(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, seed=0)
    assert ping(a, wire.b.ip, 3)[0] == 3
    wire.a.set_down()
    assert b.run(["cat", f"/sys/class/net/{wire.b.name}/carrier"]).stdout == "1\n"
    assert ping(b, wire.a.ip, 1)[0] == 0
    forth, back = wire.statistics()
    assert_conserved(forth)
    assert back.failures["refused"] + back.failures["tx_refused"] > 0
    wire.a.set_up()
    assert ping(a, wire.b.ip, 3)[0] == 3


def test_a_plain_wire_has_no_middle(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b)
    with pytest.raises(LabError, match="does nothing to packets"):
        wire.statistics()
    with pytest.raises(LabError, match="has no middle"):
        wire.impair(loss="1%")


def test_offloads_and_mtu_that_no_cable_has(lab: Lab) -> None:
    a, b = pair(lab)
    with pytest.raises(LabError, match="cannot have the offload tso"):
        lab.wire(a, b, delay="1ms", offloads={"tso": True})
    with pytest.raises(
        LabError, match="mtu of an impaired wire is a whole number from 68 to 16000, not 20000"
    ):
        lab.wire(a, b, delay="1ms", mtu=20_000)
    wire = lab.wire(a, b, delay="1ms", mtu=9000)
    assert transfer(wire, 1 << 20) == 1 << 20


def test_it_is_taken_down(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, delay="1ms")
    assert len(namespaces(os.getpid())) == 3
    assert list(lab.hosts) == ["a", "b"]
    wire.remove()
    assert len(namespaces(os.getpid())) == 2
    for host in (a, b):
        assert host.interfaces == []
        assert host.call(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
    with pytest.raises(LabError, match="was removed"):
        wire.statistics()
    wire.remove()
    lab.wire(a, b, loss="1%")
    lab.close()
    assert not namespaces(os.getpid())


def test_a_forwarder_that_ends_is_told(lab: Lab) -> None:
    a, b = pair(lab)
    wire = lab.wire(a, b, delay="1ms")
    netns = next(name for name in namespaces(os.getpid()) if ".~" in name)
    (pid,) = leftovers.processes_in(leftovers.NETNS_FOLDER / netns)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LabError, match=r"forwarder of .* ended with status -9"):
        wire.statistics()


SOURCE = """
import time
from millrace.lab import Lab
lab = Lab()
lab.wire(lab.host("a"), lab.host("b"), delay="1ms")
print("waiting", flush=True)
time.sleep(1000)
"""


def test_nothing_stays_behind_a_killed_process(
    program: Callable[..., subprocess.Popen[str]],
) -> None:
    process = program(SOURCE)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    mine = namespaces(process.pid)
    assert len(mine) == 3
    middle = next(name for name in mine if ".~" in name)
    (pid,) = leftovers.processes_in(leftovers.NETNS_FOLDER / middle)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while leftovers.start_time(pid) is not None:
        assert time.monotonic() < deadline, "the forwarder outlives its lab"
        time.sleep(0.01)
    with Lab():  # the next lab removes what is left
        assert not namespaces(process.pid)


def namespaces(pid: int) -> list[str]:
    """Those of a process; others may come and go meanwhile."""
    folder = leftovers.NETNS_FOLDER
    return [entry.name for entry in folder.glob(f"mr-{pid}-*")]


def test_an_answer_that_comes_too_late_is_not_the_next_question_s(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = lab.wire(*pair(lab), loss=0.5)
    assert isinstance(wire, ImpairedWire)
    assert wire._process is not None
    os.kill(wire._process.pid, signal.SIGSTOP)
    with monkeypatch.context() as hurry:
        hurry.setattr("millrace.lab.impaired._ANSWER_SECONDS", 0.2)
        for _ in range(2):
            with pytest.raises(LabError, match="does not answer"):
                wire.statistics()
    os.kill(wire._process.pid, signal.SIGCONT)
    wire.impair(loss=0.0)
    assert len(blast(wire, 100)) == 100
    assert wire.statistics()[0].lost == 0
