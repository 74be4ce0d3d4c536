"""A host in the middle of kernels: what passes, what goes wrong on the way, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import millrace
from millrace.lab import Host, Lab, Wire
from millrace.packets import Direction, ForwardError, Totals, forward

from .conftest import udp

KINDS = ["af_packet", "af_xdp"]
#: Who does not end by itself within this time will not.
_ENDS_SECONDS = 60.0
Pair = tuple[millrace.Port, millrace.Port]


def assert_adds_up(direction: Direction) -> None:
    """Every packet that came is somewhere."""
    there = direction.forwarded + direction.filtered + direction.lost + direction.queue_dropped
    came_not = sum(count for name, count in direction.drops.items() if " rx_" in name)
    lost = direction.dropped - came_not
    assert direction.received + direction.duplicated == there + direction.in_flight + lost


@dataclass
class Site:
    """Two hosts that can talk only through the one between them."""

    a: Host
    middle: Host
    b: Host
    left: Wire
    right: Wire

    @property
    def names(self) -> tuple[str, str]:
        return self.left.b.name, self.right.a.name

    @contextlib.contextmanager
    def forwarded(
        self, kind: str, *, ends: bool = False, **arguments: Any
    ) -> Iterator[list[Totals]]:
        """Forward meanwhile; what was done is in the list at the end.

        With `ends`, what is done meanwhile ends it: it is told to stop only if that does not.
        """
        stop, ready = threading.Event(), threading.Event()
        told: list[Totals] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                with self.middle.enter():
                    told.append(
                        forward(
                            *(f"{kind}:{name}" for name in self.names),
                            stop=stop,
                            progress=lambda _: ready.set(),
                            interval=0.0,
                            **arguments,
                        )
                    )
            except BaseException as error:
                failed.append(error)
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            ready.wait()
            yield told
        finally:
            if ends:
                thread.join(_ENDS_SECONDS)
            stop.set()
            thread.join()
            if failed:
                raise failed[0]


@pytest.fixture
def site(lab: Lab) -> Site:
    a, middle, b = lab.host("a"), lab.host("middle"), lab.host("b")
    left = lab.wire(a, middle, addresses=("192.0.2.1/24", None))
    right = lab.wire(middle, b, addresses=(None, "192.0.2.2/24"))
    for end in (left.b, right.a):
        middle.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    return Site(a, middle, b, left, right)


def pinged(host: Host, count: int, *more: str) -> str:
    command = ["ping", "-c", str(count), "-i", "0.01", "-W", "5", *more, "192.0.2.2"]
    return host.run(command, check=False).stdout


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_talk_through_it(site: Site, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 8000)
    serve = [sys.executable, "-u", "-m", "http.server", "-d", str(tmp_path), "80"]
    with site.forwarded(kind) as told:
        assert " 20 received, 0% packet loss" in pinged(site.a, 20)
        server = site.b.popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            got = tmp_path / "got"
            site.a.run(["curl", "-sS", "-m", "60", "-o", str(got), "http://192.0.2.2/file"])
        finally:
            server.kill()
            server.communicate()
        assert got.read_bytes() == (tmp_path / "file").read_bytes()
    totals = told[0]
    assert totals.zero_copy == (kind == "af_xdp")
    assert ("zero-copy: each packet" in totals.how) == (kind == "af_xdp")
    for direction in totals.directions:
        assert_adds_up(direction)
        assert direction.forwarded == direction.received > 20
        assert not direction.drops
    names = [(direction.source, direction.destination) for direction in totals.directions]
    left, right = (f"{kind}:{name}" for name in site.names)
    assert names == [(left, right), (right, left)]


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
def test_a_wire_that_loses_delays_and_is_slow(site: Site, kind: str) -> None:
    wishes: Any = {
        "delay": "10ms",
        "rate": ("20M", "1G"),
        "queue": "50packets",
        "duplicate": (0, "20%"),
    }
    with site.forwarded(kind, seed=3, **wishes) as told:
        shown = pinged(site.a, 50)
        least = re.search(r"min/avg/max/mdev = ([\d.]+)/", shown)
        assert least is not None, shown
        assert float(least[1]) >= 20
        assert "duplicates" in shown
        server = site.b.popen(
            ["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert any("listening" in line for line in server.stdout)
        command = ["iperf3", "-c", "192.0.2.2", "-t", "2", "-J"]
        result = json.loads(site.a.run(command).stdout)
        server.communicate()
        # A queue has room for 50 packets more than the rate lets through.
        assert result["end"]["sum_received"]["bits_per_second"] < 20e6 * 1.2
    forth, back = told[0].directions
    for direction in (forth, back):
        assert_adds_up(direction)
    assert forth.queue_dropped > 0
    assert (forth.duplicated, back.queue_dropped) == (0, 0)
    assert back.duplicated > 0


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_and_damaged_is_counted(site: Site, kind: str) -> None:
    with site.forwarded(kind, loss=("0", "100%")) as told:
        assert " 0 received" in pinged(site.a, 5, "-W", "1")
    forth, back = told[0].directions
    assert (back.forwarded, back.lost) == (0, back.received)
    assert forth.forwarded == forth.received
    with site.forwarded(kind, corrupt=("100%", "0")) as told:
        assert " 0 received" in pinged(site.a, 5, "-W", "1")
    forth, _ = told[0].directions
    assert forth.corrupted == forth.forwarded == forth.received > 0


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_lets_through_what_it_says(site: Site, kind: str) -> None:
    with site.forwarded(kind, filter="arp or icmp") as told:
        assert " 5 received" in pinged(site.a, 5)
        refused = site.a.run(["curl", "-m", "1", "http://192.0.2.2/"], check=False)
        assert refused.returncode != 0
    for direction in told[0].directions:
        assert_adds_up(direction)
    # What else there was is with Linux, which had it on a packet socket anyway.
    assert (told[0].directions[0].left_to_linux > 0) == (kind == "af_xdp")


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
def test_one_way_leaves_the_other_port_to_linux(site: Site, kind: str) -> None:
    site.middle.run(["ip", "addr", "add", "192.0.2.3/24", "dev", site.right.a.name])
    with site.forwarded(kind, one_way=True) as told:
        assert " 3 received" in site.b.run(["ping", "-c", "3", "-i", "0.01", "192.0.2.3"]).stdout
        assert " 0 received" in pinged(site.a, 2, "-W", "1")
    (only,) = told[0].directions
    assert only.forwarded == only.received > 0


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["down", "gone"])
def test_an_interface_that_fails_ends_it_with_totals(site: Site, kind: str, what: str) -> None:
    def forward_until_it_fails() -> None:
        with site.forwarded(kind, ends=True):
            assert " 5 received" in pinged(site.a, 5)
            site.right.a.set_down() if what == "down" else site.right.remove()

    with pytest.raises(ForwardError) as caught:
        forward_until_it_fails()
    error = caught.value
    name = site.right.a.name
    if what == "down":
        assert (error.errno, error.strerror) == (errno.ENETDOWN, error.strerror)
        assert f"{name} is down" in str(error)
    else:
        # It goes down on its way out.
        assert error.errno in (errno.ENOTCONN, errno.ENETDOWN)
        assert re.search(f"{name} is (gone|down)", str(error))
    forth, back = error.totals.directions
    assert_adds_up(forth)
    assert forth.forwarded >= 5
    assert back.forwarded >= 5


@pytest.mark.networks
def test_two_forwarders_on_one_queue(site: Site) -> None:
    with site.forwarded("af_xdp"), site.middle.enter():
        with pytest.raises(OSError, match="in use") as caught:
            forward(*(f"af_xdp:{name}" for name in site.names), count=1)
        assert caught.value.errno == errno.EBUSY


@pytest.mark.networks
def test_a_missing_capability_is_named(site: Site) -> None:
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    command = [*without, sys.executable, "-m", "millrace", "forward"]
    result = site.middle.run([*command, *(f"af_xdp:{n}" for n in site.names)], check=False)
    assert result.returncode == 1
    assert "CAP_" in result.stderr.splitlines()[-1]


def run_command(site: Site, kind: str, *more: str) -> subprocess.Popen[str]:
    names = [f"{kind}:{name}" for name in site.names]
    command = [sys.executable, "-m", "millrace", "forward", *names, *more]
    return site.middle.popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.networks
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_ends_with_its_totals(site: Site, kind: str, tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.json"
    command = run_command(site, kind, "--delay", "1ms", "--json", str(rows_file))
    assert command.stderr is not None
    assert command.stderr.readline().startswith("forwarding ")
    # Once one has come back, both ways are open.
    while " 1 received" not in pinged(site.a, 1, "-W", "1"):
        assert command.poll() is None
    command.send_signal(signal.SIGINT)
    shown, said = command.communicate()
    assert (command.returncode, said) == (0, "")
    assert "Forwarded" in shown
    rows = json.loads(rows_file.read_text())
    assert [row["source"] for row in rows] == [f"{kind}:{name}" for name in site.names]
    assert all(row["forwarded"] >= 1 for row in rows)
    assert rows[0]["zero_copy"] == (kind == "af_xdp")


@pytest.mark.networks
def test_the_command_tells_totals_when_an_interface_goes_down(site: Site) -> None:
    command = run_command(site, "af_packet")
    assert command.stderr is not None
    command.stderr.readline()
    while " 1 received" not in pinged(site.a, 1, "-W", "1"):
        assert command.poll() is None
    site.left.b.set_down()
    shown, said = command.communicate()
    assert command.returncode == 1
    assert f"{site.left.b.name} is down" in said
    assert "Forwarded" in shown


def test_memory_to_memory(make_pair: Callable[..., Pair]) -> None:
    left, first = make_pair()
    options: dict[str, Any] = {"linger": 0, "hugepages": False}
    second = millrace.open("memory:packets-forward", arena=first, **options)
    right = millrace.open("memory:packets-forward", frames=512, **options)
    with second, right:
        left.send([udp(number, port=54 - number % 2) for number in range(20)])
        right.send([udp()] * 3)
        totals = forward(first, second, filter="udp port 53", count=13)
        forth, back = totals.directions
        assert (forth.received, forth.filtered, forth.forwarded) == (20, 10, 10)
        assert (back.received, back.forwarded, back.forwarded_bytes) == (3, 3, 180)
        assert totals.forwarded == 13
        assert not totals.ended
        batch = right.receive(0)
        assert batch is not None
        assert len(batch) == 10
        left.close()
        right.close()
        assert forward(first, second).ended


def test_what_makes_no_sense(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(ValueError, match="open the second with arena="):
        forward(left, right, count=1)
    with pytest.raises(ValueError, match="cannot forward to itself"):
        forward(left, left, count=1)
    with pytest.raises(ValueError, match="two names or two ports"):
        forward(left, "eth1")
    with pytest.raises(ValueError, match="options are for ports"):
        forward(left, right, options={"frames": 3})
    with pytest.raises(ValueError, match="loss is a probability"):
        forward(left, right, loss="200%")
    with pytest.raises(ValueError, match="queue takes a rate"):
        forward(left, right, queue="64KiB")
    with pytest.raises(ValueError, match="tcp prot"):
        forward(left, right, filter="tcp prot 80")
    for count in (-1, 1 << 64, 1.5, True, "7"):
        with pytest.raises(ValueError, match=f"count is a number of packets .*, not {count!r}"):
            forward(left, right, count=count)
    with pytest.raises(ValueError, match="duration is a number"):
        forward(left, right, duration=-1)
    assert forward(left, right, duration=0).forwarded == 0
