"""The arms of the demo as data: who serves, how it is started, and how it may wait."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from millrace.bench import nginx

Wait = Literal["sleep", "spin"]

TCP_PORT = 80
BODY_BYTES = 1024
KERNEL = "kernel"


@dataclass(frozen=True)
class Scenario:
    """What the load does, and what the server does when it has nothing to do."""

    connections: int
    keepalive: bool
    wait: Wait

    @property
    def key(self) -> tuple[int, bool]:
        return self.connections, self.keepalive

    @property
    def title(self) -> str:
        kept = self.wait if self.keepalive else "new connections"
        return f"{self.connections} connection{'s' if self.connections > 1 else ''}, {kept}"


#: One connection for latency, many for cost, many that come and go.
SPINNING = Scenario(1, True, "spin")
SLEEPING = Scenario(64, True, "sleep")
CONNECTING = Scenario(64, False, "sleep")
SCENARIOS = (SPINNING, SLEEPING, CONNECTING)


@dataclass(frozen=True)
class Site:
    """Where an arm serves, and what with."""

    #: The port kind, or `kernel`.
    port: str
    interface: str
    #: The server's address with its prefix length.
    address: str
    #: `millrace-bench`.
    binary: Path
    #: An empty folder of the arm's own.
    folder: Path

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


Command = Callable[[Site, Wait], list[str]]


@dataclass(frozen=True)
class Arm:
    """One server program."""

    name: str
    language: str
    #: On the kernel's TCP; otherwise it has a port of ours to itself.
    on_kernel: bool
    command: Command = field(repr=False)
    #: How it can wait; one that cannot spin sleeps where the others spin.
    waits: tuple[Wait, ...] = ("sleep", "spin")
    #: Programs and Python modules that must be there.
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.name} {self.language}"

    def missing(self) -> list[str]:
        """What it needs and this machine has not."""
        programs = [name for name in self.programs if shutil.which(name) is None]
        return programs + [name for name in self.modules if find_spec(name) is None]

    def wait_in(self, scenario: Scenario) -> Wait:
        return scenario.wait if scenario.wait in self.waits else self.waits[0]


def _floor(site: Site, wait: Wait) -> list[str]:
    return _native("floor", site, wait)


def _millrace_native(site: Site, wait: Wait) -> list[str]:
    return _native("http", site, wait)


def _native(command: str, site: Site, wait: Wait) -> list[str]:
    return [
        *(str(site.binary), command),
        *("--port", f"{site.port}:{site.interface}", "--address", site.address),
        *("--listen", str(TCP_PORT), "--wait", wait, "--body", str(BODY_BYTES)),
    ]


def _millrace_python(site: Site, wait: Wait) -> list[str]:
    return [
        *(sys.executable, "-m", "millrace", "serve", "http"),
        *("--port", f"{site.port}:{site.interface}", "--address", site.address),
        *("--listen", str(TCP_PORT), "--wait", wait, "--body", str(BODY_BYTES)),
    ]


def _epoll(site: Site, wait: Wait) -> list[str]:
    return [
        *(str(site.binary), "epoll", "--address", f"{site.ip}:{TCP_PORT}"),
        *("--wait", wait, "--body", str(BODY_BYTES)),
    ]


def _nginx(site: Site, wait: Wait) -> list[str]:
    return nginx.command(site.folder, site.ip, TCP_PORT, BODY_BYTES)


def _uvloop(site: Site, wait: Wait) -> list[str]:
    module = "millrace.bench.uvloop_http"
    return [sys.executable, "-m", module, site.ip, str(TCP_PORT), str(BODY_BYTES)]


ARMS = (
    Arm("floor", "native", False, _floor),
    Arm("epoll", "native", True, _epoll),
    Arm("nginx", "c", True, _nginx, waits=("sleep",), programs=("nginx",)),
    Arm("uvloop", "python", True, _uvloop, waits=("sleep",), modules=("uvloop",)),
    Arm("millrace", "native", False, _millrace_native),
    Arm("millrace", "python", False, _millrace_python, modules=("millrace._native",)),
)


@dataclass(frozen=True)
class Contender:
    """An arm on a port."""

    arm: Arm
    port: str

    @property
    def title(self) -> str:
        return self.arm.title if self.port == KERNEL else f"{self.arm.title} on {self.port}"


def contenders(kinds: tuple[str, ...], names: frozenset[str] | None = None) -> list[Contender]:
    """Every arm once on the kernel or on each of the port kinds; `names` picks arms."""
    chosen = [arm for arm in ARMS if names is None or arm.name in names]
    return [
        Contender(arm, port) for arm in chosen for port in ((KERNEL,) if arm.on_kernel else kinds)
    ]
