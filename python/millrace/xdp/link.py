"""Programs on interfaces: attaching, what is attached, statistics, and what outlives a process."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from millrace.xdp.interface import index_of, name_of
from millrace.xdp.verdict import Verdict

if TYPE_CHECKING:
    from millrace import _native
    from millrace.xdp.program import Mode, Program


@dataclass(frozen=True)
class Attached:
    """A program that is attached to an interface, by whomever."""

    #: The kernel's id of the program.
    id: int
    name: str | None
    #: "native" or "generic"; None where it runs on the NIC itself.
    mode: str | None
    #: The kernel's id of the link that holds it; None where it was attached without one.
    link: int | None
    #: Runs and nanoseconds in them while statistics were counted (`timing`).
    run_count: int
    run_nanoseconds: int


@dataclass(frozen=True)
class Statistics:
    """What a program has done."""

    #: Runs and nanoseconds in them, counted by the kernel while `timing` was on.
    run_count: int
    run_nanoseconds: int
    #: Frames by verdict, counted by the program itself with `counters=True`; else empty.
    verdicts: dict[Verdict, int]
    #: Frames on which plain Python would have raised; they are not in `verdicts`.
    errors: int

    @property
    def nanoseconds_per_run(self) -> float:
        """The mean time of a run, or 0.0 where none was counted."""
        return self.run_nanoseconds / self.run_count if self.run_count else 0.0


class Link:
    """A program on an interface, until this is closed or gone, or the process is."""

    def __init__(
        self,
        native: _native.XdpLink,
        program: Program | None,
        ifindex: int | None,
        mode: str | None,
        pins: list[Path],
    ) -> None:
        self._native = native
        #: The program, unless the link was opened by a name that another process gave it.
        self.program = program
        self.ifindex = ifindex
        #: "native" or "generic".
        self.mode = mode
        self._pins = pins

    def __repr__(self) -> str:
        what = self.program.name if self.program else "a program"
        where = name_of(self.ifindex) if self.ifindex else None
        return f"<{what} on {where or f'interface {self.ifindex}'}, {self.mode}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach the program, unless it was pinned: then let go of it."""
        if self._pins:
            self._native.close()
        else:
            self._native.detach()

    def detach(self) -> None:
        """Detach the program, and remove the names that were given by `pin`."""
        self._native.detach()
        for path in self._pins:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        if self._pins:
            with contextlib.suppress(OSError):
                self._pins[0].parent.rmdir()
        self._pins = []

    def replace(self, program: Program) -> None:
        """Put another program in the place of this one; no frame goes by in between.

        Raises OSError with ENOLINK where the interface is gone or the link was detached.
        """
        expected = None if self.program is None else self.program.load()
        self._native.replace(program.load(), expected)
        self.program = program

    def info(self) -> dict[str, Any]:
        """What the kernel knows: the link's `id`, its `ifindex` (None where the interface is gone)
        and its `program`.
        """
        return self._native.info()

    def statistics(self) -> Statistics:
        """What the program has done so far."""
        known = self.info()["program"] or {}
        verdicts: dict[Verdict, int] = {}
        errors = 0
        counted = self.program.compiled.counted if self.program else None
        if counted is not None:
            verdicts = {verdict: counted[int(verdict)] for verdict in Verdict}
            errors = counted[5]
        return Statistics(
            known.get("run_count", 0), known.get("run_nanoseconds", 0), verdicts, errors
        )


def attach(program: Program, interface: str | int, mode: Mode, pin: str | Path | None) -> Link:
    """Attach a program; see `Program.attach`."""
    if mode not in ("native", "generic"):
        raise ValueError(f"mode is native or generic, not {mode!r}")
    ifindex = index_of(interface)
    loaded = program.load()
    native = loaded.attach(ifindex, mode)
    pins: list[Path] = []
    if pin is not None:
        try:
            pins = _pin(program, native, Path(pin))
        except OSError:
            native.detach()
            raise
    return Link(native, program, ifindex, mode, pins)


def _pin(program: Program, native: _native.XdpLink, directory: Path) -> list[Path]:
    """Name a link and its program's maps in a directory, which must not be there yet."""
    try:
        directory.mkdir(parents=False, mode=0o700)
    except FileExistsError:
        raise FileExistsError(
            errno.EEXIST,
            f"{directory} is there already; open it with millrace.xdp.open_link, or remove it",
        ) from None
    done: list[Path] = []
    try:
        native.pin(str(directory / "link"))
        done.append(directory / "link")
        names: set[str] = set()
        for used in program.maps:
            name = used.name or type(used).__name__.lower()
            while name in names:
                name += "_"
            names.add(name)
            used.pin(directory / name)
            done.append(directory / name)
    except OSError:
        for path in done:
            path.unlink()
        directory.rmdir()
        raise
    return done


def open_link(pin: str | Path) -> Link:
    """The link that was pinned in this directory, by this process or another. Its maps can be
    opened by declaring them with `pinned=` the directory and their names.
    """
    from millrace import _native

    directory = Path(pin)
    native = _native.XdpLink.open(str(directory / "link"))
    info = native.info()
    ifindex = info["ifindex"]
    mode = None
    if ifindex is not None and info["program"] is not None:
        for found in _native.xdp_attached(ifindex):
            if found["id"] == info["program"]["id"]:
                mode = found["mode"]
    return Link(native, None, ifindex, mode, sorted(directory.iterdir()))


def attached(interface: str | int) -> list[Attached]:
    """The XDP programs of an interface of this network namespace."""
    from millrace import _native

    return [
        Attached(
            found["id"],
            found["name"],
            found["mode"],
            found["link"],
            found.get("run_count", 0),
            found.get("run_nanoseconds", 0),
        )
        for found in _native.xdp_attached(index_of(interface))
    ]


@contextlib.contextmanager
def timing() -> Iterator[None]:
    """Have the kernel count the runs and the time of all BPF programs within the block, which costs
    each run some tens of nanoseconds.
    """
    from millrace import _native

    enabled = _native.XdpRunStatistics()
    try:
        yield
    finally:
        enabled.close()
