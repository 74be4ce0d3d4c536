# Editors show these docstrings, and not those of the compiled module.
# ruff: noqa: PYI021
"""Channels over Millrace's own TCP/IP stack. Use `millrace`, which has the same names."""

import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, final

from typing_extensions import Buffer

from . import packets as packets

__all__ = [
    "ACCEPTED",
    "CLOSED",
    "CONNECTED",
    "DATAGRAM",
    "FINISHED",
    "NAPI_BUCKETS",
    "PORT_KINDS",
    "READ",
    "WRITTEN",
    "Channel",
    "Completion",
    "ConnectionInfo",
    "DropMonitor",
    "Forwarder",
    "Handle",
    "Kind",
    "NapiMonitor",
    "Simulation",
    "XdpLink",
    "XdpMap",
    "XdpProgram",
    "XdpRunStatistics",
    "drop_reasons",
    "packets",
    "random_world",
    "xdp_attached",
    "xdp_disassemble",
    "xdp_possible_cpus",
]

_Address: TypeAlias = tuple[str, int]
_Wait: TypeAlias = Literal["sleep", "spin"] | float

class Kind(enum.IntEnum):
    """What a completion is about."""

    #: A listener has a new connection, `handle`; `listener` is whose.
    ACCEPTED = 0
    #: A connection that was opened from here is established.
    CONNECTED = 1
    #: Bytes came in, `data`.
    READ = 2
    #: Nothing that was written waits for room any more.
    WRITTEN = 4
    #: The peer sends no more, and all it sent was told. Close the handle when nothing is left to
    #: be said.
    FINISHED = 5
    #: The connection is over, in order or by an `error`.
    CLOSED = 6
    #: A datagram came in, `data` from `source`.
    DATAGRAM = 7

ACCEPTED: Final = Kind.ACCEPTED
CONNECTED: Final = Kind.CONNECTED
READ: Final = Kind.READ
WRITTEN: Final = Kind.WRITTEN
FINISHED: Final = Kind.FINISHED
CLOSED: Final = Kind.CLOSED
DATAGRAM: Final = Kind.DATAGRAM

#: The kinds of port, the best first.
PORT_KINDS: Final[list[str]]
#: The most work of each of NapiMonitor's buckets.
NAPI_BUCKETS: Final[list[int]]

@final
class Completion:
    """One thing that happened: what (`kind`), to which handle, and what came with it.

    One with a payload is bytes-like: it can be written, hashed and searched as it is.
    """

    @property
    def kind(self) -> Kind:
        """A member of `Kind`, to be compared by identity: `done.kind is READ`."""

    @property
    def handle(self) -> Handle:
        """The connection or datagram socket it happened to."""

    @property
    def data(self) -> memoryview:
        """The payload of READ and DATAGRAM as a read-only memoryview, without a copy.

        Empty where there is none. It may be kept: it keeps its frame, and never shows other bytes.
        While less than a quarter of the channel's frames are free, new payloads are copies instead
        (`payloads_copied` in `Channel.counters`).
        """

    @property
    def listener(self) -> Handle | None:
        """The listener whose connection was ACCEPTED, else None."""

    @property
    def source(self) -> _Address | None:
        """Who sent a DATAGRAM, as (host, port), else None."""

    @property
    def error(self) -> OSError | None:
        """Why a connection was CLOSED before its time, else None.

        ConnectionResetError, ConnectionRefusedError, TimeoutError or another OSError.
        """

    def tobytes(self) -> bytes:
        """The payload as bytes, copied: the quickest for what is short. Empty without one."""

    def __len__(self) -> int:
        """Bytes of the payload."""

    def __bool__(self) -> Literal[True]: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Handle:
    """A listener, a connection or a datagram socket of one channel.

    There is one object for each, so handles are compared by identity and may be keys of a
    dictionary.
    """

    #: Whatever the program wants to remember with this handle; None at first.
    state: Any

    @property
    def type_name(self) -> Literal["connection", "listener", "datagram socket"]:
        """What it is."""

    @property
    def closed(self) -> bool:
        """Whether it can be used no more."""

    @property
    def local(self) -> _Address:
        """Our address and port. OSError (ENOTCONN) once it is closed."""

    @property
    def remote(self) -> _Address:
        """The peer's address and port, of a connection. OSError (ENOTCONN) once it is closed."""

    @property
    def write_room(self) -> int:
        """Bytes that write() would take now without letting any wait."""

    @property
    def waiting(self) -> int:
        """Bytes that were written and wait for room in the send buffer."""

    @property
    def dropped(self) -> int:
        """Datagrams that this socket dropped because nobody took them in time."""

    def write(self, data: Buffer | Completion) -> int:
        """Write bytes behind what was written, and give how many bytes wait for room.

        They leave at the end of the turn. What the send buffer has no room for waits and goes on by
        itself; WRITTEN tells when nothing waits any more. A bytes object that waits is kept and not
        copied. What is written to a connection that has ended is lost; CLOSED tells, in this turn.
        Raises BlockingIOError, and takes nothing, while `write_queue` bytes wait already, and for
        more than that of what is no bytes object, because it is copied; OSError (ENOTCONN) when the
        handle was closed before; BrokenPipeError after shutdown().
        """

    def send(self, data: Buffer | Completion, to: _Address | None = None) -> None:
        """Send one datagram to `to`, a (host, port), or to the peer that the socket was opened for.

        One that does not fit the MTU leaves in fragments. Raises ValueError when it is too long
        even so, BlockingIOError when not enough frames are free, ConnectionRefusedError when the
        peer that the socket was opened for has told that nobody has the port of an earlier one,
        OSError when there is no way to that host.
        """

    def pause(self) -> None:
        """Take no more of what comes in until resume(); its closing window holds the peer back."""

    def resume(self) -> None:
        """Take again what comes in, beginning with what came meanwhile."""

    def shutdown(self) -> None:
        """Write no more: the peer is told that this was all. Reading goes on."""

    def close(self) -> None:
        """Close it; what was written is still delivered.

        What came in and was not told (READ), or comes in later, makes it a reset, with which what
        was written may be lost (RFC 2525 §2.17): shutdown() and FINISHED come before it where the
        peer may still send. Nothing more is told of it. Closing twice is no error.
        """

    def abort(self) -> None:
        """End a connection with a reset; what was written may be lost. Other handles are closed."""

    def linger(self, seconds: float | None) -> None:
        """How many seconds close() may take to deliver what was written before it aborts.

        None for as long as retransmission goes on, 0 to abort at once.
        """

    def no_delay(self, on: bool) -> None:
        """Whether small segments are sent at once (True, the channel's default) or wait for
        acknowledgements (Nagle's algorithm).
        """

    def dont_fragment(self, on: bool) -> None:
        """Whether datagrams carry the don't-fragment bit (IP_MTU_DISCOVER); send() then raises
        ValueError for one that does not fit the MTU. False at first.
        """

    def join_group(self, group: str, source: str | None = None) -> None:
        """Take datagrams to a multicast group: from every source, or only from `source` and those
        of further calls.

        Without this the socket gets nothing that is sent to the group. Raises ValueError for what
        is no group, OSError: EEXIST for a member, ENOBUFS at a bound.
        """

    def leave_group(self, group: str, source: str | None = None) -> None:
        """Take no more datagrams to a group, or no more from a source that was joined by name.

        Raises OSError (EADDRNOTAVAIL) when the socket is no member.
        """

    def block_source(self, group: str, source: str) -> None:
        """Take no datagrams from `source` any more, of a group joined for every source."""

    def unblock_source(self, group: str, source: str) -> None:
        """Take datagrams from a blocked source again."""

    def multicast_ttl(self, ttl: int) -> None:
        """How many routers may forward what is sent to groups: 1 at first, which is none; 0 keeps
        it on this host (IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS).
        """

    def multicast_loop(self, on: bool) -> None:
        """Whether members on this channel hear what is sent to groups (IP_MULTICAST_LOOP). True at
        first.
        """

    def multicast_source(self, address: str | None) -> None:
        """The channel's address that what is sent to groups comes from (IP_MULTICAST_IF); None
        for the first one.
        """

    def set_option(self, name: str, value: int | str) -> None:
        """Set an option of a connection, or of a listener, whose connections inherit it.

        By the name and with the value that setsockopt(2) has, such as ("TCP_KEEPIDLE", 10):
        TCP_NODELAY, TCP_CORK, TCP_QUICKACK, SO_KEEPALIVE (0 or 1), TCP_KEEPIDLE, TCP_KEEPINTVL,
        TCP_LINGER2, SO_LINGER (seconds; the last two -1 for none), TCP_KEEPCNT, TCP_SYNCNT,
        TCP_USER_TIMEOUT (milliseconds, 0 for none), TCP_NOTSENT_LOWAT, TCP_MAXSEG,
        TCP_WINDOW_CLAMP, SO_SNDBUF, SO_RCVBUF (bytes), SO_MAX_PACING_RATE (bytes a second, -1 for
        no limit), IP_TOS, IP_TTL, IP_MTU_DISCOVER (0 to 3), and TCP_CONGESTION (a name). Raises
        ValueError for a name or value that makes no sense.
        """

    def option(self, name: str) -> int | str:
        """An option of a connection or a listener, as set_option() takes it."""

    def tcp_info(self) -> dict[str, int]:
        """All that TCP knows of this connection, under the names and in the units of Linux's
        struct tcp_info: "tcpi_rtt" in microseconds, "tcpi_snd_cwnd" in segments and so on.
        """

    def info(self) -> ConnectionInfo:
        """What TCP knows of this connection now."""

@final
class ConnectionInfo:
    """What TCP knows of a connection at one moment. Times are in seconds, sizes in bytes."""

    @property
    def local(self) -> _Address:
        """Our end."""

    @property
    def remote(self) -> _Address:
        """The peer's end."""

    @property
    def state(self) -> str:
        """State of RFC 9293, such as ESTABLISHED."""

    @property
    def send_queue(self) -> int:
        """Bytes written and not acknowledged."""

    @property
    def receive_queue(self) -> int:
        """Bytes received and not told, because the handle is paused."""

    @property
    def memory(self) -> int:
        """Bytes of the frames that it holds, whatever is in them."""

    @property
    def in_flight(self) -> int:
        """Bytes sent and not acknowledged."""

    @property
    def mss(self) -> int:
        """Largest payload of a segment."""

    @property
    def congestion_window(self) -> int:
        """Congestion window."""

    @property
    def slow_start_threshold(self) -> int | None:
        """Slow start threshold; None before the first loss."""

    @property
    def send_window(self) -> int:
        """Window that the peer announces."""

    @property
    def receive_window(self) -> int:
        """Window that the peer was told."""

    @property
    def round_trip(self) -> float | None:
        """Smoothed round-trip time; None before the first sample."""

    @property
    def retransmission_timeout(self) -> float:
        """Retransmission timeout without back-off."""

    @property
    def retries(self) -> int:
        """Timeouts in a row."""

@final
class Channel:
    """One thread's TCP/IP stack on a port, and what happens to it in batches.

        with millrace.Channel("af_xdp:eth1", address="192.0.2.2/24") as channel:
            channel.listen(80)
            for batch in channel:
                for done in batch:
                    if done.kind is millrace.READ:
                        done.handle.write(answer(done.data))

    It belongs to the thread that makes it; all but wake() raises RuntimeError in another. A child
    that os.fork() makes cannot use it (PermissionError) and undoes nothing by closing it.
    """

    def __new__(
        cls,
        port: str,
        address: str | Sequence[str],
        *,
        gateway: str | Sequence[str] | None = None,
        mac: str | None = None,
        mtu: int | None = None,
        wait: _Wait | None = None,
        frames: int = 16384,
        frame_size: int | None = None,
        hugepages: bool | None = None,
        write_queue: int = 1048576,
        read_budget: int = 262144,
        no_delay: bool = True,
        host_name: str | None = None,
        dhcp_timeout: float = 30.0,
        slaac_timeout: float = 10.0,
        watch: bool | None = None,
        **settings: Any,
    ) -> Self:
        """Open a port and make a stack over it.

        `port`: KIND:NAME with a kind of PORT_KINDS (`af_xdp:eth1`, `tap:mill0`, `memory:wire`,
        `pcap:in.pcap,out.pcap`), a further queue as `af_xdp:eth1#1`, or an interface's name alone
        for the best kind that it allows; `facts` tells what was chosen.
        `address`: the channel's own, with the length of its network's prefix, or several, of both
        families. "dhcp" asks a DHCP server for one, tells it `host_name`, and waits for at most
        `dhcp_timeout` seconds (TimeoutError then); it is given back when the channel is closed.
        "slaac" listens to IPv6 routers, makes addresses from the prefixes that they advertise, and
        waits for one for at most `slaac_timeout` seconds. An IPv6 address is looked for on the link
        for a second before it is used (`dad_transmits=0`: it is not); connections wait for that.
        `gateway`: where packets for other networks go, one or one of each family. `mac`, `mtu`: by
        default the port's.
        `wait`: what to do while nothing happens: "sleep", "spin", or for how many microseconds to
        spin before sleeping.
        `frames`, `frame_size`: the arena; a frame is a power of two from 2048 bytes.
        `hugepages`: True for them or an error, False for none, None for them where there are any.
        `write_queue`: a connection takes no more while so many bytes wait for room.
        `read_budget`: about so many bytes of a connection are told in a turn, the rest in the next.
        `no_delay`: whether new connections send small segments at once.
        `watch`: show counters, tables and frames to `millrace top` and its like, in other processes
        of the same user and of root. By default yes, unless the environment has MILLRACE_WATCH=0.
        `settings`: bounds, timers and switches of the stack by name; docs/channels.md has a table
        of all, with units, defaults and sources, and the property `settings` tells what they are.
        Whole numbers, such as connections, syn_queue, send_buffer and receive_buffer_max; times in
        seconds, such as min_rto, delayed_ack, time_wait and user_timeout; names: `congestion` (one
        that TCP_CONGESTION takes), `ecn` ("on" and "accurate" ask for RFC 3168 or RFC 9768,
        "passive" grants what is asked for, "off" does neither), `syn_cookies` ("off", "when-full",
        "always"), `mtu_probing` ("off", "black-hole", "always") and `time_wait_reuse` ("never",
        "with-timestamps", "always"); True or False for each part of TCP that can be switched off
        to measure what it is worth (sack, dsack, timestamps, window_scaling, rack,
        tail_loss_probe, prr, frto, undo, limited_transmit, rto_restart, pacing, quick_ack and
        others); `ephemeral_ports` (first, last), and `fast_open_keys`, at most two of 16 bytes.

        Raises ValueError or TypeError for what makes no sense, OSError when the port cannot be
        opened: EADDRINUSE when Linux has the address, PermissionError without the capabilities,
        FileNotFoundError for an interface that is not there, ENETDOWN for one that is down, ENOMEM
        when there is no memory for so many connections.
        """

    @property
    def closed(self) -> bool:
        """Whether close() was called."""

    @property
    def facts(self) -> dict[str, str]:
        """How it works, by name: the port and its mode, what was chosen and why."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the stack by the names that Channel() takes, as they are in use.

        All but the keys of Fast Open, which are secret.
        """

    @property
    def watch_page(self) -> Path | None:
        """The file of the page that `millrace top` and its like read.

        None where the channel is not watched; facts["watch"] says why, if it was not switched off.
        """

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """The channel's addresses and what each may be used for.

        (address with prefix, "tentative", "optimistic", "preferred", "deprecated" or "duplicate").
        """

    @property
    def memory(self) -> dict[str, Any]:
        """How much of the memory for payload is in use.

        "state" ("plenty", "pressure" or "high"), "in_use" and the marks "low", "pressure" and
        "high", all in frames, and "frame_size" in bytes.
        """

    @property
    def routes(self) -> list[tuple[str, str | None]]:
        """The routes: (network, gateway or None for what is on the link)."""

    def add_address(self, address: str) -> None:
        """Add an address of the channel's own, with its prefix.

        Raises ValueError for what is none, FileExistsError if it is there, OSError (EADDRINUSE) if
        Linux has it.
        """

    def remove_address(self, address: str) -> None:
        """Remove an address of the channel's own, without its prefix; its connections are reset.

        Raises OSError: EADDRNOTAVAIL if it is not the channel's.
        """

    def announce(self) -> None:
        """Tell the neighbours which hardware address has the channel's addresses.

        They mend what they remember of them: for an address that another host had before (RFC 5227
        section 2.3, RFC 4861 section 7.2.6). It goes out with the next turn.
        """

    def add_route(self, network: str, gateway: str | None = None) -> None:
        """Add a route to a network, by a gateway or (None) on the link.

        Raises ValueError for what makes no sense.
        """

    def remove_route(self, network: str, gateway: str | None = None) -> None:
        """Remove a route that was added, or a gateway's (0.0.0.0/0, ::/0), as it was given.

        Raises FileNotFoundError if there is no such route.
        """

    @property
    def lease(self) -> dict[str, Any] | None:
        """What a DHCP server gave, by name, or None.

        address (with prefix), server, routes as (network, gateway or None), name_servers, domain,
        search_domains, mtu; renewal and expires are seconds from now, None without an end.
        """

    @property
    def name_servers(self) -> list[str]:
        """Name servers that the DHCP server of the lease and IPv6 routers (RFC 8106) told.

        While that holds, in the order in which they are to be asked.
        """

    @property
    def search_domains(self) -> list[str]:
        """Domains that names are completed with, as the same told them."""

    @property
    def connections(self) -> int:
        """Connections in any state, TIME-WAIT included."""

    @property
    def frames(self) -> tuple[int, int]:
        """Frames that nobody uses, and all frames."""

    @property
    def wait(self) -> _Wait:
        """What to do while nothing happens: "sleep", "spin", or microseconds to spin before
        sleeping. It may be set.
        """

    @wait.setter
    def wait(self, value: _Wait) -> None: ...
    def listen(
        self,
        port: int,
        address: str = "",
        *,
        backlog: int = 1024,
        syn_queue: int | None = None,
        fast_open: int = 0,
        defer_accept: float | None = None,
        v6_only: bool = False,
    ) -> Handle:
        """Take TCP connections to `port`, at `address` or at any address of the channel's.

        "0.0.0.0" is any of IPv4, "::" any of both families, or with `v6_only` of IPv6.
        ACCEPTED tells of each. At most `backlog` of them wait between two turns, and at most
        `syn_queue` are half-open before SYNs are answered with cookies. With `fast_open` (RFC 7413)
        as many as it says may be told of, with the data of their SYN, before their handshake has
        ended; with `defer_accept`, a number of seconds, each is told of when its first data has
        come, or this time is over. Raises OSError: EADDRINUSE, EADDRNOTAVAIL for an address that is
        not the channel's.
        """

    def connect(
        self,
        remote: _Address,
        *,
        local: _Address | None = None,
        data: Buffer | None = None,
    ) -> Handle:
        """Open a TCP connection to `remote`, a (host, port).

        CONNECTED or CLOSED tells what came of it; what is written before is sent after. `local` may
        fix our end. `data` is written at once and goes with the SYN where the server is known to
        take it (Fast Open, RFC 7413): only for requests that may be repeated, for the server may
        see them twice. Raises OSError: ENETUNREACH without a route, ENOBUFS when all connections
        are in use, EADDRINUSE when a listener, or a connection to `remote`, one in TIME-WAIT too,
        has the port of `local`, EADDRNOTAVAIL for an address that is not the channel's and when no
        port is free.
        """

    def datagram(self, port: int = 0, address: str = "", *, peer: _Address | None = None) -> Handle:
        """Open a UDP socket on `port` (0: one that is free).

        DATAGRAM tells of what comes in. With a `peer`, a (host, port), only its datagrams are
        taken, and send() needs no address. Raises OSError: EADDRINUSE, EADDRNOTAVAIL.
        """

    def turn(self, timeout: float | None = None) -> list[Completion] | None:
        """Send what was written, wait for at most `timeout` seconds, and give what happened.

        The list is empty when the time was over or wake() was called. None: nothing will ever
        happen again (the end of a capture file, the other end of a memory wire has left). The
        interpreter is free for other threads meanwhile; signals are handled at once. Raises OSError
        when the port is of no more use.
        """

    def wake(self) -> None:
        """End the current or the next wait of this channel's thread; it gets an empty batch.

        The one method for other threads, and for signal handlers.
        """

    def close(self, flush: float = 1.0) -> None:
        """Close everything.

        For at most `flush` seconds what was written is still delivered; connections that are left
        then are reset. Closing twice is no error.
        """

    def counters(self) -> dict[str, int]:
        """What the stack and the channel have counted, by name.

        Dropped packets begin with "drop_". "payloads_copied" are those that found too few frames
        free to be shown in place.
        """

    def statistics(self) -> dict[str, int]:
        """What the port has counted, by name.

        What it lost begins with "rx_" or "tx_" and says why; what only this kind of port counts
        begins with "detail_".
        """

    def __iter__(self) -> Self: ...
    def __next__(self) -> list[Completion]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

@final
class DropMonitor:
    """Counts the packets that the kernel drops, and keeps some of the frames, until close().

    All network namespaces of the machine are seen. `snap` bytes are kept of a frame (a multiple of
    8, 64 to 2048), in a ring of `ring` bytes (a power of two); `places` are counted apart at least.
    Only with `every_frame` may every frame be kept: it makes each drop cost a little more.
    `millrace.watch.drops` makes sense of what it gives.

    Raises OSError without CAP_BPF and CAP_PERFMON, ValueError for sizes that make no sense and on a
    kernel that does not tell why it drops (before 5.17, or without BTF).
    """

    def __new__(
        cls, *, snap: int = 256, ring: int = 1048576, places: int = 4096, every_frame: bool = False
    ) -> Self: ...
    def counts(self) -> list[tuple[int, int, int, int, int, str, int]]:
        """What was dropped since it was made, in no order.

        (location, reason, interface's number, namespace's inode, ether type, interface's name,
        packets).
        """

    def frames(
        self, most: int = 4096
    ) -> list[tuple[int, int, int, int, int, int, bool, int, int, bytes]]:
        """At most `most` of the frames that were kept, the oldest first.

        (nanoseconds of CLOCK_MONOTONIC, location, reason, interface's number, namespace's inode,
        ether type, whether there is an Ethernet header, where the network header begins, length of
        the whole frame, first bytes).
        """

    def keep_one_of(self, drops: int) -> None:
        """Keep one frame of about so many at each place, and the first few of each; 0: none."""

    def lost(self) -> dict[str, int]:
        """What was not seen.

        "frames": those that were to be kept and found no room; "places": drops in no count, for
        too many places were counted already.
        """

    def measure(self, on: bool) -> None:
        """Measure from now on how often and how long it runs, or no longer.

        That costs each run of every BPF program of the machine two looks at a clock.
        """

    def runs(self) -> tuple[int, int, int]:
        """Runs and nanoseconds while they were measured, and runs that were left out.

        A run is left out when the program is running on that CPU already.
        """

    def close(self) -> None:
        """Stop counting. Closing twice is no error."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

@final
class NapiMonitor:
    """Counts what each NAPI poll found to do, by interface, until close().

    All network namespaces of the machine are seen. Raises OSError without CAP_BPF and CAP_PERFMON,
    ValueError on a kernel without BTF.
    """

    def __new__(cls) -> Self: ...
    def polls(self) -> list[tuple[int, int, int, int]]:
        """Polls since it was made: (interface's number, namespace's inode, bucket, polls).

        A bucket is an index in NAPI_BUCKETS, which has the most work of each; the one behind the
        last is that of polls that used up their budget.
        """

    def close(self) -> None:
        """Stop counting. Closing twice is no error."""

def drop_reasons() -> dict[int, str]:
    """Names of the drop reasons by their numbers, as the running kernel has them.

    Raises ValueError where it does not tell.
    """

@final
class Forwarder:
    """Forwards between two interfaces of this network namespace, with an impaired link each way.

    `millrace.lab.Lab.wire` uses it; that is the way to impair a wire. The mappings name what
    happens to the packets of each direction: `loss`, `duplicate`, `corrupt` and `reorder` are
    probabilities; `delay`, `jitter` and `reorder_delay` seconds; `rate` bits per second; `queue`
    and `mark` bytes; `jitter_reorders` a flag; `bursts` the four probabilities of a Gilbert-Elliott
    channel (to bad, to good, loss when good, loss when bad).

    Raises ValueError for what makes no sense, OSError when an interface cannot be opened.
    """

    def __new__(
        cls,
        first: str,
        second: str,
        forth: dict[str, Any],
        back: dict[str, Any],
        *,
        seed: int = 0,
        frames: int = 32768,
    ) -> Self: ...
    def run(self) -> None:
        """Forward until `stop`. It looks for no signals: call it in a thread, not the main one."""

    def stop(self) -> None:
        """End `run`. Packets that are on their way are dropped."""

    def statistics(self) -> tuple[dict[str, int], dict[str, int]]:
        """What it has done to the packets of each direction. `run` must be running."""

    def impair(self, forth: dict[str, Any], back: dict[str, Any]) -> None:
        """Do this to packets from now on."""

@final
class Simulation:
    """A network that is described first and then alive. Use `millrace.lab.simulate`."""

    def __new__(
        cls,
        seed: int,
        *,
        ipv6: bool = False,
        trace: Path | None = None,
        digest: bool = True,
        check: bool = False,
    ) -> Self: ...
    def host(self, name: str | None, options: dict[str, Any]) -> int:
        """Add a host. Returns its number."""

    def switch(self, name: str | None) -> int:
        """Add a switch. Returns its number."""

    def router(self, name: str | None, icmp: bool) -> int:
        """Add a router. Returns its number."""

    def wire(
        self,
        a: int,
        b: int,
        forth: dict[str, Any],
        back: dict[str, Any],
        *,
        mtu: int,
        super_segments: bool,
        capture: bool,
    ) -> int:
        """Join two nodes. Returns the wire's number."""

    def name(self, node: int) -> str:
        """A node's name."""

    def address(self, node: int, ipv6: bool) -> str:
        """A host's address."""

    def now(self) -> float:
        """Seconds since the start."""

    def converse(
        self,
        client: int,
        server: int,
        port: int,
        sides: tuple[dict[str, Any], dict[str, Any]],
        *,
        start: float,
        ipv6: bool,
        count: int,
        interval: float,
        exchange: tuple[int, int, float] | None = None,
    ) -> None:
        """Plan `count` conversations, one every `interval` seconds. A side is a mapping of `bytes`,
        `seconds`, `manner`, `after`, `pause`, `frames`, `size`, `no_delay` and `linger`.
        """

    def change_wire(
        self,
        at: float,
        wire: int,
        what: str,
        *,
        mtu: int = 1500,
        forth: dict[str, Any] | None = None,
        back: dict[str, Any] | None = None,
    ) -> None:
        """Plan a change of a wire: down, up, mtu, impair."""

    def change_host(self, at: float, node: int, what: str) -> None:
        """Plan a change of a host: vanish, reboot."""

    def call_at(self, at: float, number: int) -> None:
        """Have ("call", number) told at a time."""

    def listen(self, node: int, port: int, handler: int) -> None:
        """Listen; what comes is told with `handler`."""

    def connect(self, node: int, address: str, port: int) -> int:
        """Connect. Returns the connection's number."""

    def write(self, connection: int, data: bytes) -> None:
        """Write to a connection."""

    def shutdown(self, connection: int) -> None:
        """No more is written."""

    def close(self, connection: int) -> None:
        """Close when all that was written is with the stack."""

    def abort(self, connection: int) -> None:
        """Reset."""

    def pause(self, connection: int, paused: bool) -> None:
        """Leave what comes in with the stack, or take it again."""

    def waiting(self, connection: int) -> int:
        """Bytes that were written and wait for room in the stack."""

    def info(self, connection: int) -> ConnectionInfo | None:
        """A look at a connection; when it is over, the last one."""

    def tcp_info(self, connection: int) -> dict[str, int] | None:
        """The same under the names of Linux's struct tcp_info."""

    def run(self, until: float) -> tuple[str, list[tuple[str, int, Any]]]:
        """Go on until a time, until nothing will happen any more, or until something is to be told.
        Returns "time", "quiet" or "notices", and what is to be told.
        """

    def reports(self) -> list[dict[str, Any]]:
        """What became of each conversation."""

    def stacks(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Each host's name and counters, those that are not zero."""

    def routers(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Each router's name and counters."""

    def wires(self) -> list[tuple[str, list[tuple[str, int]], list[tuple[str, int]]]]:
        """Each wire's name and the counters of its directions."""

    def digest(self) -> str | None:
        """SHA-256 of all packets so far."""

    def violations(self) -> list[str]:
        """What should never happen and did."""

    def events(self) -> int:
        """Events that have happened."""

def random_world(seed: int, *, trace: Path | None = None) -> dict[str, Any]:
    """Make the random world of a seed, run it and judge it: returns what is random about it
    (`description`), what it did that it must not do (`wrong`), and figures.
    """

@final
class XdpProgram:
    """A program in the kernel, for as long as this object or a link to it lives."""

    def __new__(
        cls,
        instructions: bytes,
        name: str,
        *,
        license: str = "Apache-2.0",
        frags: bool = False,
    ) -> Self:
        """Gives instructions (`struct bpf_insn` one after the other) to the verifier."""

    def info(self) -> dict[str, Any]:
        """What the kernel knows of it."""

    def attach(self, ifindex: int, mode: str) -> XdpLink:
        """Attach it to an interface of this network namespace."""

    def pin(self, path: str) -> None:
        """Name it in a BPF file system."""

    def run(
        self, frames: list[bytes], repeat: int = 1, ingress: tuple[int, int] | None = None
    ) -> list[tuple[int, bytes, int]]:
        """Run it on each frame, `repeat` times: (action, frame as the program left it, mean
        nanoseconds) of each.
        """

@final
class XdpLink:
    """An attached program: detached when this object is gone, unless it was pinned."""

    @staticmethod
    def open(path: str) -> XdpLink:
        """Opens a link that was pinned."""

    def replace(self, program: XdpProgram, expected: XdpProgram | None = None) -> None:
        """Put another program in the place of the attached one, without a gap. With `expected`,
        only if that is the one attached.
        """

    def detach(self) -> None:
        """Detach it now, whoever else holds it. A second call does nothing."""

    def close(self) -> None:
        """Let go of it; a pinned program stays attached."""

    def pin(self, path: str) -> None:
        """Name it in a BPF file system, so that it stays when this process ends."""

    def info(self) -> dict[str, Any]:
        """The link's `id`, its interface's `ifindex` (None once that is gone), and what the kernel
        knows of its `program`.
        """

@final
class XdpMap:
    """A map in the kernel, for as long as this object or a program that uses it lives. A value of a
    per-CPU kind is one value, rounded up to eight bytes, for each possible CPU.
    """

    def __new__(
        cls,
        kind: int,
        name: str,
        key_size: int,
        value_size: int,
        entries: int,
        flags: int = 0,
        open: str | Path | None = None,
    ) -> Self:
        """`kind` is a number of `enum bpf_map_type`; with `open`, the map that was pinned there is
        opened, and must be of the shape given.
        """

    def fileno(self) -> int:
        """The descriptor, which belongs to this object."""

    def id(self) -> int:
        """The kernel's id of the map."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""

    def set(self, key: bytes, value: bytes, mode: int = 0) -> None:
        """Write a value: `mode` 0 in any case, 1 only if the key is new, 2 only if it is there."""

    def delete(self, key: bytes) -> bool:
        """Remove a key; False if it was not there."""

    def keys(self) -> list[bytes]:
        """All keys. Some that come or go meanwhile may be missed."""

    def items(self) -> list[tuple[bytes, bytes]]:
        """All keys and values. Some that come or go meanwhile may be missed."""

    def pin(self, path: str) -> None:
        """Name it in a BPF file system, so that it stays when this process ends."""

@final
class XdpRunStatistics:
    """Has the kernel count runs and time of all BPF programs until it is closed or gone."""

    def __new__(cls) -> Self: ...
    def close(self) -> None:
        """Stop counting, unless somebody else has it counted too."""

def xdp_attached(ifindex: int) -> list[dict[str, Any]]:
    """The XDP programs of an interface of this network namespace: what the kernel knows of each
    (`id`, `name`, run counts and more), its `mode`, and the `link` that holds it, where there is
    one.
    """

def xdp_disassemble(instructions: bytes) -> list[tuple[int, str]]:
    """The text of instructions in the kernel's notation: (slot, text) of each."""

def xdp_possible_cpus() -> int:
    """How many CPUs the kernel counts as possible."""
