"""Programs on interfaces: attached, listed, counted, replaced, detached, pinned, left behind."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace import _native, xdp
from millrace.lab import Host, Lab, Wire
from millrace.xdp import DROP, PASS, Counter, Hash, Link, Program, Verdict, u16

pytestmark = [pytest.mark.kernel, pytest.mark.networks]

BPFFS = Path("/sys/fs/bpf")
PORT = 4242


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host, Wire]:
    client, server = lab.host("client"), lab.host("server")
    return client, server, lab.wire(client, server)


def make(verdict: Verdict = DROP) -> tuple[Program, Counter, Any]:
    """A program that treats UDP to a port so, and counts it."""
    seen = Counter()
    ports = Hash(u16)

    @xdp(counters=True)
    def filtered(pkt: Any) -> Any:
        if pkt.udp and pkt.udp.dport == PORT:
            seen.add()
            ports[pkt.udp.dport] += 1
            return verdict
        return PASS

    return filtered, seen, ports


def send(host: Host, address: str, count: int, port: int = PORT) -> None:
    """UDP datagrams; the kernel has handed all of them to the other end when this returns."""
    with host.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(b"payload", (address, port))


def settled(read: Callable[[], int], wanted: int) -> int:
    """What is read once it is what it should become; what it is in the end where it does not."""
    for _ in range(2000):
        if read() == wanted:
            break
        # NAPI may still be at work on the other core.
        os.sched_yield()
        subprocess.run(["true"], check=True)
    return read()


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_attached_program_decides_on_frames(pair: tuple[Host, Host, Wire], mode: Any) -> None:
    client, server, wire = pair
    program, seen, ports = make()
    with server.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((wire.b.ip, PORT))
        with program.attach(wire.b.name, mode) as link:
            assert link.mode == mode
            assert link.ifindex == wire.b.ifindex
            send(client, wire.b.ip, 20)
            assert settled(lambda: seen.value, 20) == 20
            assert ports.items() == [(PORT, 20)]
            statistics = link.statistics()
            assert statistics.verdicts[DROP] == 20
            assert statistics.errors == 0
        with pytest.raises(BlockingIOError):
            receiver.recv(100, socket.MSG_DONTWAIT)
        receiver.settimeout(30)
        send(client, wire.b.ip, 1)
        assert receiver.recv(100) == b"payload"
    assert seen.value == 20


def test_programs_of_an_interface_are_listed(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    program, *_ = make()
    with server.enter():
        assert xdp.attached(wire.b.name) == []
        with program.attach(wire.b.ifindex) as link:
            (found,) = xdp.attached(wire.b.name)
            info = link.info()
            assert (found.id, found.name, found.mode) == (
                info["program"]["id"],
                "filtered",
                "native",
            )
            assert found.link == info["id"]
            assert info["ifindex"] == wire.b.ifindex
        assert xdp.attached(wire.b.name) == []
        with program.attach(wire.b.name, "generic"):
            (found,) = xdp.attached(wire.b.name)
            assert found.mode == "generic"


def test_run_statistics_are_counted_while_asked(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    program, seen, _ = make()
    with server.enter():
        link = program.attach(wire.b.name)
        send(client, wire.b.ip, 5)
        assert settled(lambda: seen.value, 5) == 5
        before = link.statistics().run_count
        with xdp.timing():
            send(client, wire.b.ip, 7)
            assert settled(lambda: link.statistics().run_count - before, 7) >= 7
            statistics = link.statistics()
            assert statistics.run_nanoseconds > 0
            assert statistics.nanoseconds_per_run > 0
            (found,) = xdp.attached(wire.b.name)
            assert found.run_count == statistics.run_count
        link.detach()


def test_replacing_leaves_no_gap(pair: tuple[Host, Host, Wire]) -> None:
    client, server, wire = pair
    first, first_seen, _ = make()
    second, second_seen, _ = make()
    with server.enter():
        with first.attach(wire.b.name) as link:
            before = link.info()["id"]
            for turn in range(20):
                send(client, wire.b.ip, 5)
                link.replace(second if turn % 2 == 0 else first)
            assert settled(lambda: first_seen.value + second_seen.value, 100) == 100
            assert link.info()["id"] == before
            link.replace(second)
            assert link.program is second
            assert link.info()["program"]["id"] == second.load().info()["id"]
        with pytest.raises(ValueError, match="detached already"):
            link.replace(first)


def test_replacing_fails_where_somebody_else_has_replaced(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    first, second, third = make()[0], make()[0], make()[0]
    with server.enter(), first.attach(wire.b.name) as link:
        link._native.replace(second.load())
        with pytest.raises(PermissionError, match="replacing the XDP program of"):
            link.replace(third)


def test_second_program_is_told_of_the_first(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    first, second = make()[0], make()[0]
    with server.enter(), first.attach(wire.b.name):
        ident = first.load().info()["id"]
        for mode in ("native", "generic"):
            with pytest.raises(
                OSError, match=rf"id {ident}, name filtered, in native mode"
            ) as caught:
                second.attach(wire.b.name, mode)  # type: ignore[arg-type]
            assert caught.value.errno in (errno.EBUSY, errno.EEXIST)
            assert wire.b.name in str(caught.value)


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang for a foreign program")
def test_program_of_another_tool_is_named(pair: tuple[Host, Host, Wire], tmp_path: Path) -> None:
    _, server, wire = pair
    source, output = tmp_path / "foreign.c", tmp_path / "foreign.o"
    source.write_text(
        '__attribute__((section("prog"), used)) int foreign(void *ctx) { return 2; }\n'
        'char _license[] __attribute__((section("license"), used)) = "GPL";\n'
    )
    command = ["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(output)]
    subprocess.run(command, check=True)
    program = make()[0]
    with server.enter():
        attach = ["ip", "link", "set", wire.b.name, "xdpgeneric", "obj", str(output)]
        subprocess.run([*attach, "sec", "prog"], check=True)
        (found,) = xdp.attached(wire.b.name)
        assert (found.mode, found.link) == ("generic", None)
        with pytest.raises(OSError, match=rf"id {found.id}.*in generic mode.*xdp off") as caught:
            program.attach(wire.b.name)
        assert caught.value.errno in (errno.EBUSY, errno.EEXIST)
        server.run(["ip", "link", "set", wire.b.name, "xdpgeneric", "off"])
        program.attach(wire.b.name).close()


def test_attach_says_what_is_wrong(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    program = make()[0]
    with server.enter():
        with pytest.raises(OSError, match="no interface nothing9") as caught:
            program.attach("nothing9")
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(OSError, match="use the generic mode") as caught:
            program.attach("lo")
        assert caught.value.errno == errno.EOPNOTSUPP
        program.attach("lo", "generic").close()
        with pytest.raises(ValueError, match="native or generic"):
            program.attach(wire.b.name, "offload")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a name or an index"):
            program.attach(None)  # type: ignore[arg-type]
        server.run(["ip", "link", "set", wire.b.name, "up"])
        wire.a.host.run(["ip", "link", "set", wire.a.name, "mtu", "9000"])
        with pytest.raises(OSError, match="MTU"):
            program.attach(wire.b.name)


def test_interface_that_disappears(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    first, second = make()[0], make()[0]
    with server.enter():
        link = first.attach(wire.b.name)
        server.run(["ip", "link", "del", wire.b.name])
        assert link.info()["ifindex"] is None
        assert link.statistics().verdicts[DROP] == 0
        with pytest.raises(OSError, match="replacing") as caught:
            link.replace(second)
        assert caught.value.errno == errno.ENOLINK
        link.close()
        link.close()


def test_a_link_that_is_forgotten_detaches(pair: tuple[Host, Host, Wire]) -> None:
    _, server, wire = pair
    program = make()[0]
    with server.enter():
        link: Link | None = program.attach(wire.b.name)
        assert len(xdp.attached(wire.b.name)) == 1
        del link
        assert xdp.attached(wire.b.name) == []


HOLDER = """
import sys
import millrace
from millrace.xdp import *

seen = Counter()

@millrace.xdp
def held(pkt):
    if pkt.udp and pkt.udp.dport == 4242:
        seen.add()
        return DROP
    return PASS

link = held.attach(sys.argv[1], pin=sys.argv[2] if len(sys.argv) > 2 else None)
print("attached", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "holder.py"
    path.write_text(HOLDER)
    return path


def is_bpf_file_system() -> bool:
    mounts = Path("/proc/mounts").read_text().splitlines()
    return any(line.split()[1:3] == [str(BPFFS), "bpf"] for line in mounts)


@pytest.fixture
def pins() -> Iterator[Path]:
    """A place in the BPF file system; what was mounted and made for it is gone afterwards."""
    mounts = not is_bpf_file_system()
    if mounts:
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=False)
    if not is_bpf_file_system():
        pytest.skip("no BPF file system can be mounted at /sys/fs/bpf")
    path = BPFFS / f"millrace-test-{os.getpid()}"
    yield path
    shutil.rmtree(path, ignore_errors=True)
    if mounts:
        subprocess.run(["umount", str(BPFFS)], check=True)


def started(host: Host, script: Path, *arguments: str) -> subprocess.Popen[Any]:
    with host.enter():
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"attached"
    return process


def kill(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.communicate()


def test_killed_process_leaves_nothing(pair: tuple[Host, Host, Wire], script: Path) -> None:
    _, server, wire = pair
    process = started(server, script, wire.b.name)
    with server.enter():
        (found,) = xdp.attached(wire.b.name)
        assert found.name == "held"
        kill(process)
        assert xdp.attached(wire.b.name) == []
        make()[0].attach(wire.b.name).close()


def test_pinned_program_outlives_its_process(
    pair: tuple[Host, Host, Wire], script: Path, pins: Path
) -> None:
    client, server, wire = pair
    process = started(server, script, wire.b.name, str(pins))
    kill(process)
    with server.enter():
        (found,) = xdp.attached(wire.b.name)
        assert found.name == "held"
        send(client, wire.b.ip, 9)
        seen = Counter(pinned=pins / "seen")
        assert settled(lambda: seen.value, 9) == 9
        link = xdp.open_link(pins)
        assert (link.ifindex, link.mode) == (wire.b.ifindex, "native")
        assert link.info()["program"]["name"] == "held"
        link.close()
        assert len(xdp.attached(wire.b.name)) == 1
        other = make()[0]
        link = xdp.open_link(pins)
        link.replace(other)
        assert xdp.attached(wire.b.name)[0].name == "filtered"
        link.detach()
        assert xdp.attached(wire.b.name) == []
        assert not pins.exists()


def test_pins_say_what_is_wrong(pair: tuple[Host, Host, Wire], pins: Path, tmp_path: Path) -> None:
    _, server, wire = pair
    program, seen, _ = make()
    with server.enter():
        with pytest.raises(OSError, match="BPF file system"):
            program.attach(wire.b.name, pin=tmp_path / "plain")
        assert xdp.attached(wire.b.name) == []
        assert not (tmp_path / "plain").exists()
        with pytest.raises(FileNotFoundError):
            program.attach(wire.b.name, pin=pins / "below" / "nothing")
        assert xdp.attached(wire.b.name) == []
        with program.attach(wire.b.name, pin=pins) as link:
            assert {path.name for path in pins.iterdir()} == {
                "link", "seen", "ports", "verdicts"
            }  # fmt: skip
            with pytest.raises(OSError, match="already"):
                make()[0].attach(wire.b.name, pin=pins)
            with pytest.raises(ValueError, match="is no XDP link"):
                _native.XdpLink.open(str(pins / "seen"))
            with pytest.raises(ValueError, match="no BPF map"):
                Counter(pinned=pins / "link")
            with pytest.raises(ValueError, match="was declared"):
                Hash(u16, entries=7, pinned=pins / "ports")
            with pytest.raises(FileExistsError):
                seen.pin(pins / "seen")
            link.detach()
        with pytest.raises(FileNotFoundError, match="no such file"):
            xdp.open_link(pins)
