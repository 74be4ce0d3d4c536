"""Settings of TCP that hold connections back, whatever passes."""

from __future__ import annotations

from millrace.host.checks.table import (
    Context,
    Goal,
    Outcomes,
    check,
    info,
    ok,
    warn,
)
from millrace.host.finding import NAMESPACE, Layer

_SYSCTL = "Documentation/networking/ip-sysctl.rst"


@check(
    "tcp-features",
    Layer.PROTOCOL,
    31,
    NAMESPACE,
    why="Without window scaling a connection has at most 64 KiB on its way; without SACK each "
    "loss after the first costs a round trip; without timestamps wrapped numbers go unseen.",
    source=_SYSCTL + "; RFC 7323, RFC 2018",
)
def tcp_features(context: Context) -> Outcomes:
    """Window scaling, SACK, timestamps or automatic buffers that are switched off."""
    names = ("tcp_window_scaling", "tcp_sack", "tcp_timestamps", "tcp_moderate_rcvbuf")
    off = [name for name in names if context.number(f"net.ipv4.{name}") == 0]
    if off:
        yield warn(
            f"off: {', '.join(off)}",
            steps=[context.set(f"net.ipv4.{name}", 1) for name in off],
            risk="none that is known today",
        )
    else:
        yield ok("window scaling, SACK, timestamps and automatic buffers are on")


@check(
    "slow-start-after-idle",
    Layer.PROTOCOL,
    31,
    NAMESPACE,
    why="A connection that rested forgets how fast its path is and begins anew: on kept-alive "
    "connections each large answer starts slowly.",
    source=_SYSCTL + ", tcp_slow_start_after_idle; tuned's network-throughput",
)
def slow_start_after_idle(context: Context) -> Outcomes:
    """tcp_slow_start_after_idle of 1 with the goal throughput or latency."""
    value = context.number("net.ipv4.tcp_slow_start_after_idle")
    if value and context.goal in (Goal.THROUGHPUT, Goal.LATENCY):
        yield info(
            "tcp_slow_start_after_idle is 1",
            steps=[context.set("net.ipv4.tcp_slow_start_after_idle", 0)],
            risk="a burst after a rest may meet a path that has filled meanwhile",
        )
    else:
        yield ok(f"tcp_slow_start_after_idle is {value}")


@check(
    "notsent-lowat",
    Layer.SOCKET,
    31,
    NAMESPACE,
    why="A program may put megabytes into the send buffer before they can leave; what it writes "
    "then, a cancellation or something urgent, waits behind them.",
    source=_SYSCTL + ", tcp_notsent_lowat; tuned's network-throughput sets 131072",
)
def notsent_lowat(context: Context) -> Outcomes:
    """tcp_notsent_lowat without a limit, with the goal latency or throughput."""
    value = context.number("net.ipv4.tcp_notsent_lowat")
    if value >= 1 << 31 and context.goal in (Goal.THROUGHPUT, Goal.LATENCY):
        yield info(
            "tcp_notsent_lowat has no limit",
            steps=[context.set("net.ipv4.tcp_notsent_lowat", 131_072)],
            risk="programs are woken more often while they send",
        )
    else:
        yield ok(f"tcp_notsent_lowat is {value:,}")


@check(
    "fast-open",
    Layer.PROTOCOL,
    31,
    NAMESPACE,
    why="With Fast Open a returning client's request comes with its SYN and saves a round trip.",
    source=_SYSCTL + ", tcp_fastopen; RFC 7413; tuned's network-latency sets 3",
)
def fast_open(context: Context) -> Outcomes:
    """tcp_fastopen without the server's half, with the goal latency."""
    value = context.number("net.ipv4.tcp_fastopen")
    if context.goal is Goal.LATENCY and not value & 2:
        yield info(
            f"tcp_fastopen is {value}",
            steps=[context.set("net.ipv4.tcp_fastopen", 3)],
            risk="middleboxes that drop data on a SYN cost one more round trip",
        )
    else:
        yield ok(f"tcp_fastopen is {value}")


@check(
    "congestion-control",
    Layer.PROTOCOL,
    0,
    NAMESPACE,
    why="It decides how a connection uses its path; some that a kernel offers are experiments or "
    "for one kind of network only.",
    source=_SYSCTL + ", tcp_congestion_control; RFC 9438, RFC 8257",
)
def congestion_control(context: Context) -> Outcomes:
    """A default that is not cubic, bbr or reno; DCTCP, meant for special networks, is a warning."""
    name = context.sysctl("net.ipv4.tcp_congestion_control")
    offered = context.sysctl("net.ipv4.tcp_available_congestion_control").split()
    if name in ("cubic", "bbr", "reno"):
        yield ok(name)
        return
    better = "cubic" if "cubic" in offered else "reno"
    verdict = warn if name == "dctcp" else info
    yield verdict(
        f"{name} is the default",
        steps=[context.set("net.ipv4.tcp_congestion_control", better)],
        advice="DCTCP needs a network whose every switch marks" if name == "dctcp" else "",
        risk="new connections only",
    )
