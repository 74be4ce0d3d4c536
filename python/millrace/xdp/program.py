"""A function that is an XDP program: what can be done with it."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, overload

from millrace.xdp.compiler.compile import Compiled, compile_program
from millrace.xdp.compiler.session import Options
from millrace.xdp.interface import index_of
from millrace.xdp.maps import Map
from millrace.xdp.packet import Fault, Packet
from millrace.xdp.verdict import ABORTED, DROP, PASS, TX, Verdict

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from millrace import _native
    from millrace.xdp.link import Link

#: A program may stay attached when its process ends only where this is asked for, by a name below
#: a directory of the BPF file system.
Mode = Literal["native", "generic"]
#: What the kernel takes in a test run; the longest depends on its configuration.
_SHORTEST, _LONGEST = 14, 65535


@dataclass(frozen=True)
class Run:
    """What became of a frame."""

    verdict: Verdict
    #: The frame as the program left it.
    frame: bytes
    #: What a run took, the mean of all repeats; 0 in plain Python.
    nanoseconds: int


class Program:
    """An XDP program. `millrace.xdp` makes one of a function.

    Called with a frame it runs as plain Python and returns the verdict; what it writes goes into
    the frame where that is writable (a bytearray, a memoryview).
    """

    def __init__(self, function: Callable[..., Any], options: Options, license: str) -> None:
        functools.update_wrapper(self, function)
        # Other programs may call it, though it has a decorator.
        function.__xdp_program__ = True  # type: ignore[attr-defined]
        self.name = options.name
        self.options = options
        self._license = license
        self._compiled = compile_program(function, options)
        self._loaded: _native.XdpProgram | None = None
        #: For other programs, which may call this one's function.
        self.__wrapped_function__ = function

    def __repr__(self) -> str:
        return f"<XDP program {self.name}: {self.instructions} instructions>"

    @property
    def maps(self) -> tuple[Map, ...]:
        """The maps that it uses."""
        return tuple(self._compiled.maps)

    @property
    def instructions(self) -> int:
        """How many instructions it has."""
        return self._compiled.assembled.instructions

    @property
    def compiled(self) -> Compiled:
        """What the compiler made of it."""
        return self._compiled

    # In plain Python

    def __call__(self, frame: Buffer, *, ifindex: int = 1, queue: int = 0) -> Verdict:
        """Run it on a frame in plain Python, with the same outcome as in the kernel.

        Its maps are the kernel's once a program that uses them is loaded, and until then live in
        this process. `ifindex` and `queue` are what the program sees of where the frame came in.
        """
        view = memoryview(frame).cast("B")
        run = self._plain(bytes(view), ifindex, queue)
        if not view.readonly:
            view[:] = run.frame
        return run.verdict

    def plain(
        self, frames: Iterable[Buffer] | Buffer, *, ifindex: int = 1, queue: int = 0
    ) -> list[Run]:
        """As `run`, in plain Python."""
        return [self._plain(frame, ifindex, queue) for frame in _frames(frames)]

    def _plain(self, frame: bytes, ifindex: int, queue: int) -> Run:
        options = self.options
        packet = Packet(
            frame,
            vlan=options.vlan,
            extensions=options.extensions,
            ifindex=ifindex,
            queue=queue,
        )
        fault = False
        try:
            verdict = Verdict(self._compiled.plain(packet))
        except Fault:
            verdict, fault = options.on_error, True
        counted = self._compiled.counted
        if counted is not None:
            index = 5 if fault else int(verdict)
            counted.program_set(index, counted.program_get(index) + 1)
        return Run(verdict, bytes(packet.frame), 0)

    # In the kernel

    def load(self) -> _native.XdpProgram:
        """Load it, and its maps, into the kernel; a second call does nothing. It goes when nothing
        needs it any more.

        Raises VerifierError where the verifier refuses it, PermissionError without CAP_BPF and
        CAP_NET_ADMIN.
        """
        if self._loaded is None:
            from millrace import _native
            from millrace.xdp.verifier import explained

            assembled = self._compiled.assembled
            descriptors = {id(used): used.in_kernel().fileno() for used in self._compiled.maps}
            indices = {name: index_of(name) for _, name in assembled.interfaces}
            code = assembled.with_objects(descriptors, indices)
            try:
                self._loaded = _native.XdpProgram(
                    code, self.name, license=self._license, frags=self.options.frags
                )
            except OSError as error:
                raise explained(error, self._compiled, self.name) from None
        return self._loaded

    def run(
        self,
        frames: Iterable[Buffer] | Buffer,
        *,
        repeat: int = 1,
        interface: str | int | None = None,
        queue: int = 0,
    ) -> list[Run]:
        """Run it in the kernel on frames, as if they had come in (BPF_PROG_TEST_RUN).

        Each frame is run `repeat` times, each run on what the one before left of it, and the result
        is that of the last. They come in on `queue` of `interface`, by default on loopback. The
        kernel takes frames from 14 bytes to some 70,000; of one that does not fit a page with its
        head and tail room, some 3,500 bytes, a program sees the first buffer.

        Raises ValueError for frames of other lengths, else as `load`.
        """
        if not 1 <= repeat < 1 << 31:
            raise ValueError(f"repeat is 1 to {(1 << 31) - 1}, not {repeat}")
        given = _frames(frames)
        for frame in given:
            if len(frame) < _SHORTEST:
                raise ValueError(
                    f"the kernel runs programs on frames of {_SHORTEST} bytes or more, not "
                    f"{len(frame)}; plain Python takes any: {self.name}(frame)"
                )
        ingress = None if interface is None else (index_of(interface), queue)
        loaded = self.load()
        try:
            results = loaded.run(given, repeat, ingress)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.E2BIG, errno.ENOMEM) and given:
                raise self._too_long(given, ingress, error) from None
            raise
        return [Run(_verdict(action), out, ns) for action, out, ns in results]

    def _too_long(
        self, frames: list[bytes], ingress: tuple[int, int] | None, error: OSError
    ) -> Exception:
        longest = max(map(len, frames))
        if longest > _LONGEST:
            return ValueError(
                f"the kernel does not run {self.name} on a frame of {longest} bytes, which is more "
                "than its buffers hold"
            )
        if ingress is not None:
            return ValueError(
                f"the kernel does not run {self.name} as if on queue {ingress[1]} of interface "
                f"{ingress[0]}; see `ls /sys/class/net/IFACE/queues`"
            )
        return error

    def attach(
        self, interface: str | int, mode: Mode = "native", *, pin: str | Path | None = None
    ) -> Link:
        """Attach it to an interface of this network namespace. It stays as long as the result, at
        most as long as this process, unless `pin` names a directory below a BPF file system that
        shall keep link and maps (`millrace.xdp.open_link`).

        `mode`: "native" is in the driver; "generic" works on every interface, after Linux has made
        its own buffer of the frame. Raises OSError: EBUSY names a program that is attached already,
        EOPNOTSUPP says that the driver has no native mode.
        """
        from millrace.xdp.link import attach

        return attach(self, interface, mode, pin)

    def explain(self) -> str:
        """The instructions beside the lines of Python that they come from."""
        from millrace.xdp.listing import listing

        return listing(self._compiled, self.name)


def _frames(frames: Iterable[Buffer] | Buffer) -> list[bytes]:
    """Frames as bytes; one alone is a list of one."""
    try:
        return [bytes(memoryview(frames).cast("B"))]  # type: ignore[arg-type]
    except TypeError:
        pass
    found = []
    for frame in frames:  # type: ignore[union-attr]
        try:
            found.append(bytes(memoryview(frame).cast("B")))
        except TypeError:
            raise TypeError(f"a frame is bytes-like, and this is {type(frame).__name__}") from None
    return found


def _verdict(action: int) -> Verdict:
    # The kernel takes what it does not know for an error.
    return Verdict(action) if action <= 4 else ABORTED


@overload
def xdp(function: Callable[..., Any]) -> Program: ...
@overload
def xdp(
    *,
    name: str | None = None,
    on_error: Verdict = PASS,
    vlan: int = 2,
    extensions: int = 0,
    frags: bool = False,
    counters: bool = False,
    license: str = "Apache-2.0",
) -> Callable[[Callable[..., Any]], Program]: ...
def xdp(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    on_error: Verdict = PASS,
    vlan: int = 2,
    extensions: int = 0,
    frags: bool = False,
    counters: bool = False,
    license: str = "Apache-2.0",
) -> Program | Callable[[Callable[..., Any]], Program]:
    """Compile a function to an XDP program: `@millrace.xdp`, or with options.

    `name`: what the kernel shows, at most 15 characters of it; by default the function's name.
    `on_error`: the verdict where plain Python would raise: a field of a header that is not there, a
    byte beyond the end, a division by zero. `vlan`: VLAN tags, 0 to 2, that headers are looked for
    behind. `extensions`: IPv6 extension headers, 0 to 8, that transport headers are looked for
    behind. `frags`: attach it where frames may take several buffers (a large MTU), of which the
    program sees the first.
    `counters`: count verdicts, for `Link.statistics`. `license`: what the kernel is told.

    Raises CompileError where the function is not in the subset (docs/xdp.md).
    """
    if on_error not in (ABORTED, DROP, PASS, TX):
        raise ValueError(f"on_error is ABORTED, DROP, PASS or TX, not {on_error!r}")
    for what, value, most in (("vlan", vlan, 2), ("extensions", extensions, 8)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{what} is 0 to {most}, not {value!r}")
    if name is not None and (not name or not name.replace("_", "a").replace(".", "a").isalnum()):
        raise ValueError(f"{name!r} is no name for a program; use letters, digits, _ and .")

    def decorate(function: Callable[..., Any]) -> Program:
        if not isinstance(function, FunctionType):
            raise TypeError(f"millrace.xdp takes a function, not {type(function).__name__}")
        options = Options(
            name or function.__name__, Verdict(on_error), vlan, extensions, frags, counters
        )
        return Program(function, options, license)

    return decorate if function is None else decorate(function)
