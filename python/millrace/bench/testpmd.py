"""DPDK's testpmd on an interface of a virtual host: the peer of the packet bench.

It is Debian's, without huge pages, on the drivers for AF_XDP and AF_PACKET. It is driven through
its own prompt, so one process serves for every size and burst.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from millrace.lab import Host

PROGRAM = "dpdk-testpmd"
#: Debian's packages with the program and with the two drivers.
PACKAGES = ("dpdk-dev", "librte-net-af-xdp23", "librte-net-af-packet23")
_INSTALL_SECONDS = 600.0
_START_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
#: Buffers of 2 KiB; by default it takes those of a machine with gigabytes to spare.
_BUFFERS = 32_768
_MEGABYTES = 256

#: What testpmd calls the works of the bench.
MODES = {"rxdrop": "rxonly", "txpush": "txonly", "l2fwd": "io"}


def missing(install: bool = True) -> str | None:
    """Why there is no testpmd; None where there is one. Root has it installed, if `install`."""
    if shutil.which(PROGRAM) is not None:
        return None
    if not install:
        return f"{PROGRAM} is not installed (Debian: apt-get install {' '.join(PACKAGES)})"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return (
            f"{PROGRAM} is not installed, and this is not root on Debian; "
            f"apt-get install {' '.join(PACKAGES)}"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{' '.join(command)} took more than {_INSTALL_SECONDS:g} s"
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            return f"{' '.join(command)} failed: {last[0]}"
    return None if shutil.which(PROGRAM) is not None else f"{PACKAGES[0]} has no {PROGRAM}"


@dataclass(frozen=True)
class PortCounts:
    """What testpmd counted on one of its ports."""

    received: int
    missed: int
    sent: int
    send_failed: int


class Testpmd:
    """A testpmd that waits for its prompt, on one or two interfaces of a host."""

    #: No test of pytest's.
    __test__ = False

    def __init__(
        self, host: Host, interfaces: Sequence[str], kind: str, work: str, *, core: int, other: int
    ) -> None:
        devices = []
        for number, interface in enumerate(interfaces):
            options = {"af_xdp": "", "af_packet": ",qdisc_bypass=1,framecnt=4096"}[kind]
            devices += ["--vdev", f"net_{kind}{number},iface={interface}{options}"]
        command = [
            # A pipe would make it keep its answers to itself.
            *("stdbuf", "-oL", PROGRAM, "--no-huge", "-m", str(_MEGABYTES), "--no-pci"),
            *("--no-telemetry", "--file-prefix", f"millrace{os.getpid()}-{id(self):x}"),
            *("--lcores", f"0@{other},1@{core}", *devices, "--", "-i"),
            *(f"--forward-mode={MODES[work]}", f"--total-num-mbufs={_BUFFERS}"),
        ]
        self._said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = host.popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            found = self._expect(r"^Checking link statuses|No probed ethernet", _START_SECONDS)
            if "No probed" in found[0]:
                raise RuntimeError(f"{PROGRAM} has no port: {self._last()}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def set(self, frame_bytes: int, batch: int, *, sends: bool) -> None:
        """Size of what it sends, and packets of a burst."""
        self._command(f"set burst {batch}")
        if sends:
            self._command(f"set txpkts {frame_bytes}")
        self._command("clear port stats all")

    def start(self) -> None:
        """Begin; returns once it does."""
        self._command("start")
        self._expect(r"^ .*packet forwarding.*packets/burst", _ANSWER_SECONDS)

    def stop(self, ports: int) -> list[PortCounts]:
        """End, and tell what each port counted."""
        self._command("stop")
        failed = []
        for _ in range(ports):
            # The drivers for the kernel's interfaces do not count what they did not send.
            found = self._expect(r"TX-packets: \d+ +TX-dropped: (\d+)", _ANSWER_SECONDS)
            failed.append(int(found[1]))
        self._expect(r"^Done\.", _ANSWER_SECONDS)
        self._command("show port stats all")
        counts = []
        for number in range(ports):
            came = self._expect(r"RX-packets: (\d+) +RX-missed: (\d+)", _ANSWER_SECONDS)
            went = self._expect(r"TX-packets: (\d+) +TX-errors: (\d+)", _ANSWER_SECONDS)
            counts.append(
                PortCounts(
                    received=int(came[1]),
                    missed=int(came[2]),
                    sent=int(went[1]),
                    send_failed=failed[number],
                )
            )
        return counts

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError, ValueError):
            self._command("quit")
        try:
            self._process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _command(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _expect(self, pattern: str, seconds: float) -> re.Match[str]:
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"{PROGRAM} did not say {pattern!r}: {self._last()}") from None
            if line is None:
                raise RuntimeError(f"{PROGRAM} ended: {self._last()}")
            self._said.append(line)
            del self._said[:-20]
            if found := re.search(pattern, line):
                return found

    def _last(self) -> str:
        lines = [line.strip() for line in self._said if line.strip()]
        errors = [line for line in lines if re.search(r"error|fail|cannot|no such", line, re.I)]
        return " / ".join(errors[-3:] or lines[-3:]) or "nothing"
