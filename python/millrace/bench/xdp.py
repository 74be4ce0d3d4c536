"""XDP programs compiled from Python beside the same in C, compiled by clang -O2.

Both arms have the same maps with the same contents and get the same frame; the kernel runs each
some hundred thousand times and says what a run took (BPF_PROG_TEST_RUN). The arms take turns.
"""

from __future__ import annotations

import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.bench import bpf_object
from millrace.lab import Host, Lab
from millrace.xdp import types
from millrace.xdp.program import Program

PEERS = Path(__file__).with_name("xdp_peers")
ARMS = ("python", "clang")
_PAYLOAD = "00" * 18


def _frame(port: int, *, source: str = "c0000201", source_port: int = 5000) -> bytes:
    """UDP over IPv4 to a port, 60 bytes, both checksums right."""
    head = bytes.fromhex(f"4500002e00004000ff110000{source}c0000202")
    udp = bytes.fromhex(f"{source_port:04x}{port:04x}001a0000{_PAYLOAD}")
    pseudo = head[12:20] + b"\0\x11" + udp[4:6]
    head = head[:10] + _checksum(head).to_bytes(2, "big") + head[12:]
    udp = udp[:6] + _checksum(pseudo + udp).to_bytes(2, "big") + udp[8:]
    return bytes.fromhex("020000000001020000000002") + b"\x08\0" + head + udp


def _checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


#: The frame that each program is timed on: one that it has most to do with.
FRAMES = {
    "shield": _frame(9),
    "ports": _frame(4000),
    "blocklist": _frame(4000, source="0a010203"),
    "dns_rate": _frame(53),
    "reflector": _frame(7, source_port=7),
    "balancer": _frame(80),
    "router": _frame(4000),
}
#: The kernel does not give a program its frame back between runs: so often a frame can be routed.
_MOST_REPEATS = {"router": 250}
_CALLS = 20
#: What is in the maps, as bytes: an LPM prefix, the backends, the interfaces (loopback is one).
_CONTENTS: dict[str, list[tuple[bytes, bytes]]] = {
    "blocked": [(types.u32.pack(8) + bytes([10, 0, 0, 0]), types.u64.pack(0))],
    "backends": [(types.u32.pack(i), bytes([192, 0, 2, 10 + i])) for i in range(4)],
    "interfaces": [(types.u32.pack(i), types.u32.pack(1)) for i in range(4)],
}


@dataclass(frozen=True)
class Arm:
    """One program, loaded."""

    name: str
    instructions: int
    #: The mean nanoseconds of so many runs on a frame.
    time: Callable[[bytes, int], float]
    #: Runs on frames: action, frame, nanoseconds of each.
    run: Callable[[list[bytes]], list[tuple[int, bytes, int]]]
    attach: Callable[[int, str], Any]
    info: Callable[[], dict[str, Any]]
    maps: tuple[Any, ...]


def have_clang() -> bool:
    """Whether clang is installed."""
    return shutil.which("clang") is not None


def compiled_by_clang(name: str) -> bpf_object.BpfObject:
    """The peer of a program. Raises FileNotFoundError without clang."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "peer.o")
        command = ["clang", "-O2", "-target", "bpf", "-c", str(PEERS / f"{name}.c")]
        subprocess.run([*command, "-o", str(output)], check=True)
        return bpf_object.read(output)


def clang_arm(name: str) -> Arm:
    """Load the peer of a program."""
    from millrace import _native

    peer = compiled_by_clang(name)
    maps = [
        _native.XdpMap(m.kind, m.name, m.key_size, m.value_size, m.entries, m.flags)
        for m in peer.maps
    ]
    for definition, made in zip(peer.maps, maps, strict=True):
        for key, value in _CONTENTS.get(definition.name, []):
            made.set(key, value)
    loaded = _native.XdpProgram(peer.with_maps([made.fileno() for made in maps]), name)
    return _arm("clang", name, peer.instructions, loaded, maps)


def python_arm(program: Program) -> Arm:
    """Load a program."""
    for used in program.maps:
        for key, value in _CONTENTS.get(used.name or "", []):
            used.in_kernel().set(key, value)
    return _arm("python", program.name, program.instructions, program.load(), program.maps)


def _arm(arm: str, name: str, instructions: int, loaded: Any, maps: Sequence[Any]) -> Arm:
    def time(frame: bytes, repeat: int) -> float:
        most = _MOST_REPEATS.get(name, repeat)
        calls = _CALLS if most < repeat else 1
        results = loaded.run([frame] * calls, min(repeat, most))
        return statistics.fmean(result[2] for result in results)

    return Arm(arm, instructions, time, loaded.run, loaded.attach, loaded.info, tuple(maps))


def total(counted: Any) -> int:
    """The sum of a map's values of eight bytes, whether it is a Map or the kernel's alone."""
    store = getattr(counted, "_store", counted)
    return sum(types.u64.unpack(value) for _, value in store.items())


def xdp_drops(host: Host, interface: str) -> int:
    """Frames that XDP programs on a veth have dropped, by the driver's own counters."""
    text = host.run(["ethtool", "-S", interface]).stdout
    return sum(int(n) for n in re.findall(r"rx_queue_\d+_xdp_drops: (\d+)", text))


def send(host: Host, interface: str, frames: Sequence[bytes]) -> int:
    """Send frames from an interface of a host, each once; how many went out."""
    with host.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        return sum(sender.send(frame) == len(frame) for frame in frames)


def drop_rates(
    programs: Iterable[str] = ("shield", "blocklist"), *, rounds: int = 3, frames: int = 200_000
) -> list[dict[str, Any]]:
    """Rows of programs that drop all that is sent to them over veth, native mode: `program`, `arm`,
    `frames`, `dropped`, and `mpps`, the median of the rounds. The arms take turns; one sender on a
    core of its own, a packet socket, sets the pace.
    """
    from millrace.bench.xdp_programs import PROGRAMS

    rows: list[dict[str, Any]] = []
    with Lab() as lab:
        client, server = lab.host("client"), lab.host("server")
        wire = lab.wire(client, server)
        for name in programs:
            arms = [python_arm(PROGRAMS[name])]
            if have_clang():
                arms.append(clang_arm(name))
            rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
            dropped = dict.fromkeys(rates, 0)
            for _ in range(rounds):
                for arm in arms:
                    with server.enter():
                        link = arm.attach(wire.b.ifindex, "native")
                    before = xdp_drops(server, wire.b.name)
                    begun = time.monotonic()
                    sent = send(client, wire.a.name, [FRAMES[name]] * frames)
                    gone = _await_drops(server, wire.b.name, before, sent)
                    rates[arm.name].append(gone / (time.monotonic() - begun) / 1e6)
                    dropped[arm.name] += gone
                    link.detach()
            rows += [
                {
                    "program": name,
                    "arm": arm.name,
                    "frames": frames * rounds,
                    "dropped": dropped[arm.name],
                    "mpps": round(statistics.median(rates[arm.name]), 3),
                }
                for arm in arms
            ]
    return rows


def _await_drops(host: Host, interface: str, before: int, wanted: int) -> int:
    """Frames dropped once all are, or once no more come."""
    gone = xdp_drops(host, interface) - before
    while gone < wanted:
        now = xdp_drops(host, interface) - before
        if now == gone:
            break
        gone = now
    return gone


def measure(
    programs: Iterable[str] = (), *, rounds: int = 7, repeat: int = 300_000
) -> list[dict[str, Any]]:
    """A row for each program and arm: `program`, `arm`, `instructions`, `ns_per_packet` (the median
    of the rounds), and for ours `instruction_ratio` and `time_ratio` to clang's.

    Without clang there is no row of it, and no ratio. Raises PermissionError without CAP_BPF.
    """
    from millrace.bench.xdp_programs import PROGRAMS

    rows: list[dict[str, Any]] = []
    for name in programs or PROGRAMS:
        if name not in PROGRAMS:
            raise ValueError(f"no program {name!r}; there is {', '.join(PROGRAMS)}")
        arms = [python_arm(PROGRAMS[name])]
        if have_clang():
            arms.append(clang_arm(name))
        times: dict[str, list[float]] = {arm.name: [] for arm in arms}
        for turn in range(rounds):
            for arm in arms if turn % 2 else arms[::-1]:
                times[arm.name].append(arm.time(FRAMES[name], repeat))
        for arm in arms:
            row: dict[str, Any] = {
                "program": name,
                "arm": arm.name,
                "instructions": arm.instructions,
                "machine_code_bytes": arm.info()["compiled_bytes"],
                "ns_per_packet": round(statistics.median(times[arm.name]), 1),
            }
            if arm.name == "python" and len(arms) > 1:
                row["instruction_ratio"] = round(arm.instructions / arms[1].instructions, 3)
                pairs = zip(times["python"], times["clang"], strict=True)
                row["time_ratio"] = round(statistics.median(a / max(1.0, b) for a, b in pairs), 3)
            rows.append(row)
    return rows
