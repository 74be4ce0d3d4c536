"""Programs that are watched, each in a process and a folder of its own."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millrace.watch import processes
from millrace.watch.processes import Process

#: Two channels on a memory wire with one connection between them, turned until standard input ends.
#: A line on it is answered when it was carried out.
PAIR = """
import os, select, sys
from millrace.net import ACCEPTED, Channel

options = {"frames": 2048, "hugepages": False}
client = Channel("memory:wire", "192.0.2.1/24", **options)
server = Channel("memory:wire", "192.0.2.2/24", **options)
server.listen(80, backlog=7)
server.datagram(53)
handle = client.connect(("192.0.2.2", 80))
accepted = None

def turn():
    global accepted
    client.turn(0.001)
    for done in server.turn(0.001) or []:
        if done.kind is ACCEPTED:
            accepted = done.handle

while accepted is None:
    turn()
print("ready", flush=True)
while True:
    turn()
    if select.select([0], [], [], 0)[0]:
        line = os.read(0, 4096).decode()
        if not line:
            break
        exec(line)
        print("done", flush=True)
client.close(0)
server.close(0)
"""


class Watched:
    """A program that runs until it is told to end, or is killed."""

    def __init__(self, source: str, folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MILLRACE_RUN_DIR": str(folder), **environment},
        )
        self.expect("ready")

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == line + "\n"

    def do(self, line: str) -> None:
        """Have the program run a line between two turns."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self.expect("done")

    def found(self) -> Process:
        """What its pages say now."""
        found = [p for p in processes.find().processes if p.pid == self.process.pid]
        assert len(found) == 1, processes.find()
        return found[0]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def powerless() -> None:
    """Keep the user, who may read the source tree, and lose all that root may: for preexec_fn."""
    libc = ctypes.CDLL(None)
    for capability in range(41):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
    libc.capset(struct.pack("II", 0x20080522, 0), bytes(24))


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of pages, of this test alone."""
    folder = tmp_path / "run"
    monkeypatch.setenv("MILLRACE_RUN_DIR", str(folder))
    return folder


@pytest.fixture
def watched(run_folder: Path) -> Iterator[Callable[..., Watched]]:
    """Starts programs; all are killed at the end."""
    started: list[Watched] = []

    def start(source: str = PAIR, **environment: str) -> Watched:
        program = Watched(source, run_folder, **environment)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()
        for stream in (program.process.stdin, program.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
