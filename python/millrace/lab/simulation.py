"""Networks of our stacks in virtual time: any topology, from a seed, the same to the byte.

A scenario is a function that is given a `Simulation`, says what there is and what happens:

    from millrace.lab import Simulation, simulate

    def scenario(sim: Simulation) -> None:
        client, server, router = sim.host("client"), sim.host("server"), sim.router("router")
        sim.wire(client, router, delay="5ms")
        sim.wire(router, server, delay="20ms", rate="10M", loss="1%")
        sim.bulk(client, server, bytes=10_000_000)

    result = simulate(scenario, seed=7, trace="run.pcapng")

Minutes of the network's time take well under a second, and the same seed gives the same packets:
`result.digest` says so. What a scenario drives itself gets its own handlers: `host.listen`,
`host.connect`, `sim.at`. `millrace simulate SCENARIO.py --seed 7 --trace FILE` replays a seed.
"""

from __future__ import annotations

import inspect
import itertools
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, get_args

from millrace.lab.errors import LabError
from millrace.lab.impairment import Time, Wishes, flag, read, time, whole

#: A setting of a stack; docs/channels.md has them all.
OptionValue: TypeAlias = int | float | bool | str | None
Manner: TypeAlias = Literal["patient", "polite", "hasty", "rude", "deaf", "fickle"]

_PORTS = (1, 65535)
_MTUS = (576, 65535)
#: What is counted in 32 bits: bytes of a message, and bytes and frames of one look at a connection.
_COUNTS = (0, (1 << 32) - 1)
#: When a simulation ends at the latest, in seconds.
_LONGEST = 1e9

__all__ = [
    "Connection",
    "Flow",
    "Host",
    "Result",
    "Router",
    "Side",
    "Simulation",
    "Switch",
    "Wire",
    "simulate",
]


def moment(name: str, value: Time) -> float:
    """Seconds from the start, or from now on."""
    what = "a time from the start or from now on"
    return time(name, value, what=what, most=_LONGEST)


class Side(TypedDict, total=False):
    """What one side of a conversation does; see `Simulation.converse`."""

    #: Bytes that it writes.
    bytes: int
    #: Or: it writes for so many seconds.
    seconds: float
    #: How it ends: `patient`, the default, shuts its side, reads to the end and waits until all it
    #: wrote was acknowledged; `polite` closes without waiting for that; `hasty` closes without
    #: reading to the end; `rude` resets after `after` bytes in both directions; `deaf` throws away
    #: what it receives; `fickle` (a client) closes before it is connected.
    manner: Manner
    after: int
    #: It looks at its connection only now and then, up to so many seconds apart, and reads at most
    #: `frames` frames and writes at most `size` bytes then.
    pause: float
    frames: int
    size: int
    #: No Nagle.
    no_delay: bool
    #: Seconds that a close may take.
    linger: float


def _side(side: Side | None) -> dict[str, Any]:
    """What a side does, within the bounds of each."""
    fields: dict[str, Any] = dict(side or {})
    for name, value in fields.items():
        if name in ("bytes", "after"):
            whole(name, value)
        elif name in ("frames", "size"):
            whole(name, value, *_COUNTS)
        elif name in ("seconds", "pause", "linger"):
            fields[name] = time(name, value, what="a time", most=_LONGEST)
        elif name == "no_delay":
            flag(name, value)
        elif name == "manner" and value not in get_args(Manner):
            raise LabError(f"manner is one of {', '.join(get_args(Manner))}, not {value!r}")
    return fields


class Node:
    """A host, a switch or a router."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self._simulation = simulation
        self._number = number
        self.name: str = simulation._native.name(number)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Switch(Node):
    """A learning switch: all that is joined to it shares one network."""


class Router(Node):
    """An IP router: each wire, or the switch at its end, is a network of its own."""


class Host(Node):
    """A host: one stack on one wire."""

    @property
    def address(self) -> str:
        """Its IPv4 address. Asking brings the network to life."""
        return self._simulation._native.address(self._number, False)

    @property
    def ipv6(self) -> str:
        """Its IPv6 address, where the simulation has IPv6. Asking brings the network to life."""
        return self._simulation._native.address(self._number, True)

    def listen(self, port: int, handler: Callable[[Connection], object]) -> None:
        """Take connections: `handler` is called with each, and sets its callbacks."""
        simulation = self._simulation
        number = len(simulation._handlers)
        simulation._native.listen(self._number, whole("port", port, *_PORTS), number)
        simulation._handlers.append((self, handler))

    def connect(self, server: Host, port: int, *, ipv6: bool = False) -> Connection:
        """Open a connection; set its callbacks before the simulation goes on."""
        native = self._simulation._native
        self._simulation._own(server)
        if not isinstance(server, Host):
            raise TypeError(f"a connection goes to a host, not to {server!r}")
        whole("port", port, *_PORTS)
        address = server.ipv6 if ipv6 else server.address
        return Connection(self, native.connect(self._number, address, port))

    def vanish(self, at: Time) -> None:
        """Be silent from then on, without a word to anybody."""
        self._simulation._native.change_host(moment("at", at), self._number, "vanish")

    def reboot(self, at: Time) -> None:
        """Come back from having vanished, with a stack that remembers nothing."""
        self._simulation._native.change_host(moment("at", at), self._number, "reboot")


class Wire:
    """A wire between two nodes."""

    def __init__(self, simulation: Simulation, number: int, mtu: int) -> None:
        self._simulation = simulation
        self._number = number
        self._mtu = mtu

    def down(self, at: Time, until: Time | None = None) -> None:
        """Lose everything from then on, or until it is up again."""
        native = self._simulation._native
        begin = moment("at", at)
        end = None if until is None else moment("until", until)
        if end is not None and end <= begin:
            raise LabError(
                f"a wire cannot be up again at {end:g} s when it goes down at {begin:g} s"
            )
        native.change_wire(begin, self._number, "down")
        if end is not None:
            native.change_wire(end, self._number, "up")

    def set_mtu(self, at: Time, mtu: int) -> None:
        """Take packets of other sizes from then on. Hosts are not told."""
        self._simulation._native.change_wire(
            moment("at", at), self._number, "mtu", mtu=whole("mtu", mtu, *_MTUS)
        )

    def impair(self, at: Time, **impairments: Unpack[Wishes]) -> None:
        """Let other things go wrong from then on; see `Simulation.wire`."""
        forth, back = read(impairments, self._mtu)
        self._simulation._native.change_wire(
            moment("at", at), self._number, "impair", forth=forth.native(), back=back.native()
        )


class Connection:
    """A connection that the scenario drives. What happens to it calls what was set here."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self._native = host._simulation._native
        self._number = number
        #: It is established; for one that was opened from here.
        self.on_connected: Callable[[], object] | None = None
        #: Bytes came in.
        self.on_data: Callable[[bytes], object] | None = None
        #: Nothing that was written waits for room in the stack any more.
        self.on_drained: Callable[[], object] | None = None
        #: The peer sends no more. Without it, the connection is closed then, as by `close`.
        self.on_finished: Callable[[], object] | None = None
        #: It is over without having been closed here; with what went wrong, if something did.
        self.on_closed: Callable[[OSError | None], object] | None = None
        host._simulation._connections[number] = self

    def write(self, data: bytes) -> None:
        """Send. All is taken; what the stack has no room for waits."""
        self._native.write(self._number, data)

    def finish(self) -> None:
        """Say that nothing more will be written. Reading goes on."""
        self._native.shutdown(self._number)

    def close(self) -> None:
        """Close when all that was written is with the stack. Nothing is called after this."""
        self._native.close(self._number)
        self._forget()

    def abort(self) -> None:
        """Reset the connection. Nothing is called after this."""
        self._native.abort(self._number)
        self._forget()

    def pause(self) -> None:
        """Leave what comes in with the stack, so that its window closes."""
        self._native.pause(self._number, True)

    def resume(self) -> None:
        """Take again what comes in."""
        self._native.pause(self._number, False)

    @property
    def waiting(self) -> int:
        """Bytes that were written and wait for room in the stack."""
        return self._native.waiting(self._number)

    @property
    def info(self) -> Any:
        """A look at the connection (`millrace.ConnectionInfo`); when it is over, the last one."""
        return self._native.info(self._number)

    @property
    def tcp_info(self) -> dict[str, int] | None:
        """The same under the names of Linux's struct tcp_info: "tcpi_rtt" in microseconds,
        "tcpi_snd_cwnd" in segments and so on.
        """
        return self._native.tcp_info(self._number)

    def _forget(self) -> None:
        # What happened at the same time may still be waiting to be told.
        self.host._simulation._connections.pop(self._number, None)

    def _told(self, what: str, value: Any) -> None:
        if what == "connected" and self.on_connected is not None:
            self.on_connected()
        elif what == "data" and self.on_data is not None:
            self.on_data(value)
        elif what == "drained" and self.on_drained is not None:
            self.on_drained()
        elif what == "finished":
            if self.on_finished is not None:
                self.on_finished()
            else:
                self.close()
        elif what == "closed":
            self._forget()
            if self.on_closed is not None:
                self.on_closed(None if value is None else OSError(value, os.strerror(value)))


@dataclass(frozen=True)
class FlowSide:
    """What became of one side. Times are seconds from the start of the simulation."""

    #: Bits received in a second, from being connected to the last byte.
    goodput: float
    written: int
    received: int
    #: It read all that the other side sent, to the end.
    finished: bool
    #: Why its connection ended before its time.
    errno: int | None
    #: Its host vanished.
    vanished: bool
    connected: float | None
    first_byte: float | None
    last_byte: float | None
    ended: float | None
    #: The last look at its connection, a `millrace.ConnectionInfo`.
    info: Any


@dataclass(frozen=True)
class Flow:
    """What became of one connection of a conversation."""

    client: str
    server: str
    port: int
    started: float
    #: From the start to the last byte; None: it was never connected.
    duration: float | None
    #: Both sides got all that the other wrote, and closed.
    complete: bool
    #: How long each request took until its response was there.
    latencies: list[float]
    sides: tuple[FlowSide, FlowSide]

    @property
    def goodput(self) -> float:
        """Bits a second in the direction that carried more."""
        return max(self.sides, key=lambda side: side.received).goodput


@dataclass(frozen=True)
class Result:
    """What a simulation came to."""

    seed: int
    #: Seconds of the network's time.
    seconds: float
    #: Events that happened: how much work it was.
    events: int
    #: SHA-256 of every packet on every wire with its time; None without a digest.
    digest: str | None
    flows: list[Flow]
    #: Counters of each host's stack, those that are not zero.
    hosts: dict[str, dict[str, int]]
    routers: dict[str, dict[str, int]]
    #: Counters of each wire's directions, by "a-b", or "a-b#2" for a second one.
    wires: dict[str, tuple[dict[str, int], dict[str, int]]]
    trace: Path | None
    #: What should never happen and did: a byte out of place, an event out of turn.
    violations: list[str] = field(default_factory=list)


class Simulation:
    """A network in virtual time: first described, then alive.

    Hosts, switches, routers and wires come first; the first conversation, listener, connection or
    address brings the network to life. Times are seconds or texts such as "10ms", counted from the
    start.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        ipv6: bool = False,
        trace: str | os.PathLike[str] | None = None,
        digest: bool = True,
        check: bool = False,
    ) -> None:
        """With `check`, the stacks' invariants are checked after each of their turns."""
        from millrace._native import Simulation as Native

        self.seed = seed
        self.trace = None if trace is None else Path(trace)
        whole("seed", seed)
        self._native = Native(seed, ipv6=ipv6, trace=self.trace, digest=digest, check=check)
        self._handlers: list[tuple[Host, Callable[[Connection], object]]] = []
        self._connections: dict[int, Connection] = {}
        self._calls: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count()
        self._ports = itertools.count(5001)

    # What there is.

    def host(self, name: str | None = None, **options: OptionValue) -> Host:
        """Add a host. Options are settings of its stack by the names that a channel's have, such as
        `send_buffer`, `sack`, `delayed_ack`, and its arena's `frames`; an unknown one is refused
        with all names. `super_segments` is how many bytes it hands out at once, `transmit_time`
        how long its port takes for a packet.
        """
        return Host(self, self._native.host(name, options))

    def switch(self, name: str | None = None) -> Switch:
        """Add a switch."""
        return Switch(self, self._native.switch(name))

    def router(self, name: str | None = None, *, icmp: bool = True) -> Router:
        """Add a router. Without `icmp` it drops what does not fit without a word."""
        return Router(self, self._native.router(name, icmp))

    def wire(
        self,
        a: Node,
        b: Node,
        *,
        mtu: int = 1500,
        super_segments: bool = False,
        capture: bool = True,
        **impairments: Unpack[Wishes],
    ) -> Wire:
        """Join two nodes. What goes wrong is said as for `Lab.wire`: `loss`, `burst`, `duplicate`,
        `corrupt`, `delay`, `jitter`, `jitter_reorders`, `reorder`, `reorder_delay`, `rate`,
        `queue`, `mark`; one value, or a tuple of one for what `a` sends and one for what `b` sends.

        Where `super_segments` pass, they pass whole, as between virtual machines. A trace shows a
        wire unless `capture` is false.
        """
        forth, back = read(impairments, mtu)
        number = self._native.wire(
            self._own(a),
            self._own(b),
            forth.native(),
            back.native(),
            mtu=whole("mtu", mtu, *_MTUS),
            super_segments=super_segments,
            capture=capture,
        )
        return Wire(self, number, mtu)

    def _own(self, node: Node) -> int:
        if not isinstance(node, Node):
            raise TypeError(f"a host, a switch or a router is wanted, not {node!r}")
        if node._simulation is not self:
            kind = type(node).__name__.lower()
            raise LabError(f"{kind} {node.name} belongs to another simulation")
        return node._number

    # What happens.

    def converse(
        self,
        client: Host,
        server: Host,
        *,
        client_side: Side | None = None,
        server_side: Side | None = None,
        port: int | None = None,
        start: Time = 0.0,
        count: int = 1,
        interval: Time = 0.0,
        ipv6: bool = False,
        exchange: tuple[int, int, Time] | None = None,
    ) -> None:
        """Plan `count` connections, one every `interval`. Each byte is known and checked.

        With `exchange`, (bytes of a request, bytes of a response, time to think), both sides talk
        in turn for as long as they have bytes to write.
        """
        if exchange is not None:
            request, response, think = exchange
            exchange = (
                whole("request", request, *_COUNTS),
                whole("response", response, *_COUNTS),
                moment("think", think),
            )
        self._native.converse(
            self._own(client),
            self._own(server),
            next(self._ports) if port is None else whole("port", port, *_PORTS),
            (_side(client_side), _side(server_side)),
            start=moment("start", start),
            ipv6=ipv6,
            count=whole("count", count),
            interval=moment("interval", interval),
            exchange=exchange,
        )

    def bulk(
        self,
        client: Host,
        server: Host,
        *,
        bytes: int | None = None,
        seconds: Time | None = None,
        start: Time = 0.0,
        ipv6: bool = False,
    ) -> None:
        """Send `bytes` bytes, or as much as goes in `seconds` seconds, from client to server."""
        if (bytes is None) == (seconds is None):
            raise LabError("bulk takes either bytes or seconds")
        side: Side
        side = (
            {"seconds": moment("seconds", seconds or 0.0)}
            if bytes is None
            else {"bytes": whole("bytes", bytes)}
        )
        self.converse(client, server, client_side=side, start=start, ipv6=ipv6)

    def requests(
        self,
        client: Host,
        server: Host,
        *,
        count: int,
        request: int = 100,
        response: int = 1000,
        think: Time = 0.0,
        start: Time = 0.0,
        ipv6: bool = False,
    ) -> None:
        """Send `count` requests over one connection, each when the last one was answered."""
        whole("count", count)
        whole("request", request, *_COUNTS)
        whole("response", response, *_COUNTS)
        self.converse(
            client,
            server,
            client_side={"bytes": count * request, "no_delay": True},
            server_side={"bytes": count * response, "no_delay": True},
            exchange=(request, response, think),
            start=start,
            ipv6=ipv6,
        )

    def short_flows(
        self,
        client: Host,
        server: Host,
        *,
        count: int,
        interval: Time,
        request: int = 100,
        response: int = 10_240,
        start: Time = 0.0,
        ipv6: bool = False,
    ) -> None:
        """Open `count` connections, one every `interval`, for one request and its response."""
        whole("request", request, *_COUNTS)
        whole("response", response, *_COUNTS)
        self.converse(
            client,
            server,
            client_side={"bytes": request, "no_delay": True},
            server_side={"bytes": response, "no_delay": True},
            exchange=(request, response, 0.0),
            count=count,
            interval=interval,
            start=start,
            ipv6=ipv6,
        )

    def at(self, when: Time, function: Callable[[], object]) -> None:
        """Call a function at a time from the start of the simulation."""
        self._call_at(moment("at", when), function)

    def after(self, delay: Time, function: Callable[[], object]) -> None:
        """Call a function some time from now."""
        self._call_at(self.now + moment("after", delay), function)

    def _call_at(self, seconds: float, function: Callable[[], object]) -> None:
        number = next(self._numbers)
        self._calls[number] = function
        self._native.call_at(seconds, number)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._native.now()

    def run(self, until: Time | None = None) -> bool:
        """Go on until a time or until nothing will happen any more; returns whether the latter."""
        end = _LONGEST if until is None else moment("until", until)
        while True:
            stop, notices = self._native.run(end)
            for what, number, value in notices:
                self._tell(what, number, value)
            if stop != "notices":
                return stop == "quiet"

    def _tell(self, what: str, number: int, value: Any) -> None:
        if what == "call":
            self._calls.pop(number)()
        elif what == "accepted":
            host, handler = self._handlers[value]
            handler(Connection(host, number))
        elif number in self._connections:
            self._connections[number]._told(what, value)

    def result(self) -> Result:
        """What it has come to so far."""
        native = self._native
        wires: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
        for name, forth, back in native.wires():
            names = itertools.chain([name], (f"{name}#{n}" for n in itertools.count(2)))
            free = next(one for one in names if one not in wires)
            wires[free] = (dict(forth), dict(back))
        return Result(
            seed=self.seed,
            seconds=self.now,
            events=native.events(),
            digest=native.digest(),
            flows=[_flow(report) for report in native.reports()],
            hosts={name: dict(counters) for name, counters in native.stacks()},
            routers={name: dict(counters) for name, counters in native.routers()},
            wires=wires,
            trace=self.trace,
            violations=native.violations(),
        )


def _flow(report: Mapping[str, Any]) -> Flow:
    fields = dict(report)
    client, server = fields.pop("sides")
    return Flow(sides=(FlowSide(**client), FlowSide(**server)), **fields)


def simulate(
    scenario: Callable[[Simulation], object],
    *,
    seed: int = 0,
    until: Time | None = None,
    trace: str | os.PathLike[str] | None = None,
    ipv6: bool = False,
    digest: bool = True,
    check: bool = False,
) -> Result:
    """Run a scenario in virtual time, until a time or until nothing happens any more.

    What the scenario or its callbacks raise comes out with a note of how to replay the seed.
    Bytes out of place and the like are in `Result.violations`.
    """
    simulation = Simulation(seed, ipv6=ipv6, trace=trace, digest=digest, check=check)
    try:
        scenario(simulation)
        simulation.run(until)
        return simulation.result()
    except Exception as error:
        again = replay(scenario, seed, ipv6=ipv6, until=until)
        error.add_note(f"this was seed {seed}; to see it again: {again}")
        raise


def replay(
    scenario: Callable[[Simulation], object],
    seed: int,
    *,
    ipv6: bool = False,
    until: Time | None = None,
) -> str:
    """What runs a seed of a scenario again, with a trace.

    A command, for a function that a file has by its name; for any other (a lambda, one within
    another, a method) the call of `simulate`.
    """
    function = inspect.unwrap(scenario)
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", "")
    if code is not None and name.isidentifier() and Path(code.co_filename).is_file():
        return replay_command(code.co_filename, name, seed, ipv6=ipv6, until=until)
    name = getattr(function, "__name__", "")
    words = [name if name.isidentifier() else "scenario", f"seed={seed}"]
    words += ["ipv6=True"] if ipv6 else []
    words += [] if until is None else [f"until={moment('until', until)}"]
    words += [f'trace="seed-{seed}.pcapng"']
    return f"simulate({', '.join(words)})"


def replay_command(
    file: str | os.PathLike[str],
    function: str,
    seed: int,
    *,
    ipv6: bool = False,
    until: Time | None = None,
) -> str:
    """The command that runs a seed of a function of a file again, with a trace."""
    words = ["millrace", "simulate", os.fspath(file)]
    words += [] if function == "scenario" else ["--function", function]
    words += ["--ipv6"] if ipv6 else []
    words += [] if until is None else ["--until", str(moment("until", until))]
    return shlex.join([*words, "--seed", str(seed), "--trace", f"seed-{seed}.pcapng"])
