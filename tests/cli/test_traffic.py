"""`millrace send`, `replay` and `meter` on virtual hosts."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.cli import main
from millrace.lab import Host, Interface, Lab, Wire

pytestmark = pytest.mark.networks

MILLRACE = [sys.executable, "-m", "millrace"]
Start = Callable[..., "subprocess.Popen[Any]"]


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """A wire whose ends have addresses."""
    return lab.wire(lab.host("a"), lab.host("b"))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command on a host; all are over at the end."""
    with contextlib.ExitStack() as stack:

        def start(host: Host, *arguments: object) -> subprocess.Popen[Any]:
            process: subprocess.Popen[Any] = host.popen(
                [*MILLRACE, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def run(start: Start, host: Host, *arguments: object) -> tuple[int, str, str]:
    process = start(host, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def address(end: Interface) -> str:
    assert end.address is not None
    return end.address.partition("/")[0]


def test_what_is_sent_is_metered(wire: Wire, start: Start) -> None:
    meter = start(wire.b.host, "meter", wire.b.name, "--count", 2000, "--json", "-")
    assert meter.stderr is not None
    assert "metering on" in meter.stderr.readline()
    status, out, err = run(
        start,
        wire.a.host,
        *("send", wire.a.name, "-d", address(wire.b), "--destination-mac", wire.b.mac),
        *("--source-port", "random:1024-65535", "--size", "imix"),
        *("--count", 2000, "--pps", "20k", "--stream", 3, "--json", "-"),
    )
    assert status == 0, err
    (row,) = json.loads(out)
    assert (row["packets"], row["port"]) == (2000, f"af_packet:{wire.a.name}")
    assert row["bytes"] == sum((60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590) * 166) + sum(
        (60, 590, 60, 60, 590, 60, 1514, 60)
    )
    assert "2,000 packets of" in err
    assert "the way out was af_packet, which is enough for that pace" in err
    out, err = meter.communicate(timeout=60)
    assert meter.returncode == 0
    (row,) = json.loads(out)
    assert (row["stream"], row["packets"], row["lost"], row["duplicated"]) == (3, 2000, 0, 0)
    assert row["latency_min_ns"] <= row["latency_p50_ns"] <= row["latency_max_ns"]
    assert "stream 3: 2,000 packets came, 0 were lost (0.000%)" in err


def test_sender_and_receiver_in_one(wire: Wire, start: Start, lab: Lab) -> None:
    second = lab.wire(wire.a.host, wire.b.host, names=("eth1", "eth1"))
    # What comes in at b by one goes back to a by the other.
    bridge = "ip link add br0 type bridge && ip link set br0 up"
    for end in (wire.b, second.b):
        bridge += f" && ip link set {end.name} master br0"
    wire.b.host.run(["sh", "-c", bridge])
    status, out, err = run(
        start,
        wire.a.host,
        *("send", wire.a.name, "-d", "192.0.2.77", "--destination-mac", "02:00:00:00:00:77"),
        *("--source", "192.0.2.5", "--count", 500, "--pps", "10k", "--receive", second.a.name),
        *("--size", 100, "--json", "-"),
    )
    assert status == 0, err
    sent, came = json.loads(out)
    assert sent["packets"] == came["packets"] == 500
    assert came["lost"] == 0


def test_a_signal_ends_it_and_it_says_what_it_did(wire: Wire, start: Start) -> None:
    process = start(
        wire.a.host,
        *("send", wire.a.name, "-d", address(wire.b), "--destination-mac", wire.b.mac),
        *("--pps", "1000"),
    )
    # It has begun when the other end counts its packets.
    with wire.b.host.enter():
        while not any(
            line.split()[1] != "0"
            for line in Path("/proc/net/dev").read_text().splitlines()
            if line.strip().startswith(f"{wire.b.name}:")
        ):
            assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "packets of" in out


def test_the_next_hop_is_what_linux_knows(wire: Wire, start: Start) -> None:
    to = address(wire.b)
    status, _, err = run(start, wire.a.host, "send", wire.a.name, "-d", to, "--show", 1)
    assert status == 1
    assert f"knows no hardware address towards {to} by {wire.a.name}: ping it once" in err
    wire.a.host.run(["ping", "-c", "1", to])
    status, out, _ = run(start, wire.a.host, "send", wire.a.name, "-d", to, "--show", 2)
    assert status == 0
    first, second = map(bytes.fromhex, out.split())
    assert first == second
    assert first[:6].hex(":") == wire.b.mac
    assert first[26:34].hex() == "c0000201c0000202"
    assert len(first) == 60


def test_a_frame_of_ones_own(start: Start, wire: Wire) -> None:
    status, out, err = run(
        start,
        wire.a.host,
        *("send", wire.a.name, "--frame", "hex:" + "ff" * 12 + "88b5" + "00" * 46),
        *("--field", "20:2=1-3", "--show", 4),
    )
    assert status == 0, err
    assert [line[40:44] for line in out.split()] == ["0001", "0002", "0003", "0001"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--destination is missing"),
        (["-d", "10.0.0.1", "--frame", "hex:00"], "--frame is the whole packet"),
        (["--frame", "hex:0g"], "pairs of hexadecimal digits"),
        (["--frame", "hex:" + "00" * 60, "--field", "x"], "--field is OFFSET:WIDTH=VALUES"),
        (["-d", "10.0.0.300"], "--destination: '10.0.0.300' is no number and no address"),
        (["-d", "10.0.0.1", "--pps", "fast"], "--pps is a number of packets a second"),
        (["-d", "10.0.0.1", "--rate", "fast"], "--rate is a rate in bit/s"),
        (["-d", "10.0.0.1", "--pps", "1k", "--rate", "1M"], "not both"),
        (["-d", "10.9.0.1", "-s", "10.9.0.2"], "knows no hardware address towards 10.9.0.1"),
    ],
)
def test_what_makes_no_sense(
    wire: Wire, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ["--destination-mac", "02:00:00:00:00:09"] if "not both" in text else []
    with wire.a.host.enter():
        assert main(["send", wire.a.name, *arguments, *known, "--show", "1"]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert len(error.splitlines()) == 1


def test_a_file_is_sent_again(wire: Wire, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    to = ("-d", address(wire.b), "--destination-mac", wire.b.mac)
    capture = start(wire.b.host, "capture", wire.b.name, "udp", "-w", path, "-c", 100)
    assert capture.stderr is not None
    assert "capturing on" in capture.stderr.readline()
    run(start, wire.a.host, "send", wire.a.name, *to, "-c", 100, "--pps", "10k")
    assert capture.wait(60) == 0
    meter = start(wire.b.host, "capture", wire.b.name, "udp", "-c", 300, "--json", "-")
    assert meter.stderr is not None
    assert "capturing on" in meter.stderr.readline()
    status, out, err = run(
        start,
        wire.a.host,
        "replay",
        path,
        f"af_packet:{wire.a.name}",
        "udp",
        "--pps",
        "20k",
        "-n",
        3,
    )
    assert status == 0, err
    assert "300 packets of 18,000 bytes" in out
    out, _ = meter.communicate(timeout=60)
    assert json.loads(out)[0]["packets"] == 300
    path.write_bytes(path.read_bytes()[:-300])
    status, _, err = run(
        start, wire.a.host, "replay", path, f"af_packet:{wire.a.name}", "--fastest"
    )
    assert status == 1
    assert "packets were sent until then" in err
    assert str(path) in err.splitlines()[-1]


def test_an_interface_that_is_not_there(start: Start, wire: Wire, tmp_path: Path) -> None:
    for arguments in (["send", "nosuch", "-d", "10.0.0.1"], ["meter", "nosuch"]):
        status, _, err = run(start, wire.a.host, *arguments)
        assert status == 1
        assert "nosuch" in err
        assert len(err.splitlines()) == 1


def test_without_permission_it_says_what_is_missing(wire: Wire) -> None:
    for arguments in (["send", wire.a.name, "-d", "10.0.0.1"], ["meter", wire.a.name]):
        process = wire.a.host.popen(
            [
                *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
                *("--bounding-set=-all", "--inh-caps=-all", *MILLRACE, *arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        _, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "CAP_NET_RAW" in error
        assert len(error.splitlines()) == 1
