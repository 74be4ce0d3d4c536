"""Two looks as rows of rates: plain data that JSON can hold, one object a tick.

A tick is `{"format", "version", "time", "seconds", "host", "cost", "notes", "views"}`, and each
view is a list of flat rows. What is `None` is not known. Rates are a second; times are microseconds
where a name ends in `_us`, shares are 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from millrace.host import ladder as ladders
from millrace.host.checks.table import Context
from millrace.host.rates import Rates, difference
from millrace.host.unavailable import NotAvailable, Unavailable
from millrace.watch import netstat
from millrace.watch.limits import limit
from millrace.watch.namespaces import Names
from millrace.watch.netstat import Connection
from millrace.watch.page import Page
from millrace.watch.processes import Process
from millrace.watch.top.events import Timeline
from millrace.watch.top.flows import Flows
from millrace.watch.top.sample import Sample

FORMAT = "millrace-top"
VERSION = 1

#: Rows of a view at most: the most interesting ones.
MOST_ROWS = 256

Value = str | int | float | bool | None
Row = dict[str, Value]
Tick = dict[str, Any]

K = TypeVar("K")


class Ticker:
    """Makes ticks of looks; keeps what outlives a tick."""

    def __init__(self) -> None:
        self._flows = Flows()
        self._timeline = Timeline()
        self._names = Names()

    def tick(self, before: Sample, after: Sample) -> Tick:
        """What happened in between."""
        rates = Rates(before.machine, after.machine)
        seconds = max(1e-6, after.clock - before.clock)
        connections = _connections(after)
        earlier = {_id(one): one for one in _connections(before)}
        views: dict[str, list[Row]] = {
            "cpus": _cpus(rates, seconds),
            "queues": _queues(rates, after, seconds),
            "napi": self._napi(before, after, seconds),
            "ladder": _ladder(rates, after, seconds),
            "drops": _drops(before, after, seconds),
            "sockets": _sockets(connections, earlier, seconds),
            "flows": self._flows.rows(connections, earlier, seconds),
            "listeners": _listeners(connections),
            "stacks": _stacks(before, after, seconds),
            "interfaces": _interfaces(rates, seconds),
        }
        views = {name: rows[:MOST_ROWS] for name, rows in views.items()}
        views["overview"] = _overview(views, rates, seconds)
        views["timeline"] = self._timeline.rows(views, before, after)
        return {
            "format": FORMAT,
            "version": VERSION,
            "time": round(after.time, 3),
            "seconds": round(seconds, 3),
            "host": after.machine.origin.host,
            "cost": {"cpu_share": round((after.cpu - before.cpu) / seconds, 4)},
            "notes": list(after.notes),
            "views": views,
        }

    def _napi(self, before: Sample, after: Sample, seconds: float) -> list[Row]:
        from millrace._native import NAPI_BUCKETS

        names = [f"le_{most}" for most in NAPI_BUCKETS]
        found: dict[tuple[int, int], Row] = {}
        for (ifindex, namespace, bucket), count in after.napi.items():
            polls = (count - before.napi.get((ifindex, namespace, bucket), 0)) / seconds
            interface = self._names.interface(namespace, ifindex) or f"interface {ifindex}"
            where = self._names.of(namespace)
            row = found.setdefault(
                (ifindex, namespace),
                {
                    "interface": f"{where}/{interface}" if where else interface,
                    "polls": 0.0,
                    **dict.fromkeys([*names, "full"], 0.0),
                },
            )
            name = names[bucket] if bucket < len(names) else "full"
            row[name] = _float(row[name]) + polls
            row["polls"] = _float(row["polls"]) + polls
        for row in found.values():
            polls = _float(row["polls"])
            row["empty_share"] = _float(row["le_0"]) / polls if polls else 0.0
            row["full_share"] = _float(row["full"]) / polls if polls else 0.0
        return sorted(found.values(), key=lambda row: -_float(row["polls"]))


def _float(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _try(make: Any, *arguments: Any) -> Any:
    """A part of the machine, or nothing where it could not be read."""
    try:
        return make(*arguments)
    except Unavailable:
        return None


def _rated(counts: Mapping[K, float] | None, seconds: float) -> dict[K, float]:
    return {key: count / seconds for key, count in (counts or {}).items()}


def _cpus(rates: Rates, seconds: float) -> list[Row]:
    shares = _try(lambda: rates.cpu_shares) or {}
    softnet = _try(lambda: rates.softnet) or {}
    softirqs = _try(lambda: rates.softirqs) or {}
    irqs: dict[int, int] = {}
    for counts in (_try(lambda: rates.irqs) or {}).values():
        for cpu, count in counts.items():
            irqs[cpu] = irqs.get(cpu, 0) + count
    rows: list[Row] = []
    for cpu in sorted(set(shares) | set(softnet)):
        share, net = shares.get(cpu), softnet.get(cpu)
        rows.append(
            {
                "cpu": cpu,
                "busy": min(1.0, share.busy) if share else None,
                "softirq": share.softirq if share else None,
                "steal": share.steal if share else None,
                "irqs": irqs.get(cpu, 0) / seconds,
                "net_rx": softirqs.get("NET_RX", {}).get(cpu, 0) / seconds,
                "net_tx": softirqs.get("NET_TX", {}).get(cpu, 0) / seconds,
                "packets": net.processed / seconds if net else None,
                "dropped": net.dropped / seconds if net else None,
                "squeezed": net.squeezed / seconds if net else None,
                "rps": net.received_rps / seconds if net else None,
                "flow_limit": net.flow_limit / seconds if net else None,
                "backlog": net.backlog if net else None,
            }
        )
    return rows


def _queues(rates: Rates, after: Sample, seconds: float) -> list[Row]:
    machine = after.machine
    names = {link.index: link.name for link in machine.links or ()}
    napis = {napi.id: napi for napi in machine.napis or ()}
    irqs = {irq.number: irq for irq in machine.irqs or ()}
    limits = {(one.interface, one.queue): one for one in machine.transmit_queues or ()}
    counted = _try(lambda: rates.queues) or {}
    totals: dict[tuple[int, str], float] = {}
    for (index, way, _), counters in counted.items():
        totals[index, way] = totals.get((index, way), 0.0) + counters.get(f"{way}-packets", 0)
    rows: list[Row] = []
    for one in machine.queue_counters or ():
        counters = counted.get((one.index, one.way, one.queue), {})
        packets = counters.get(f"{one.way}-packets")
        total = totals.get((one.index, one.way), 0.0)
        napi = napis.get(one.napi)
        irq = irqs.get(napi.irq) if napi is not None else None
        cpus = irq.effective if irq is not None else None
        bql = limits.get((names.get(one.index, ""), one.queue)) if one.way == "tx" else None
        lost = [n for name, n in counters.items() if "drop" in name or "fail" in name]
        rows.append(
            {
                "interface": names.get(one.index, str(one.index)),
                "queue": f"{one.way} {one.queue}",
                "packets": packets / seconds if packets is not None else None,
                "bits": 8 * counters.get(f"{one.way}-bytes", 0) / seconds if counters else None,
                "share": packets / total if packets is not None and total else None,
                "lost": sum(lost) / seconds if lost else None,
                "napi": one.napi or None,
                "irq": napi.irq if napi is not None and napi.irq else None,
                "cpus": ",".join(map(str, cpus)) if isinstance(cpus, tuple) else None,
                "inflight": _known(bql.inflight) if bql is not None else None,
                "limit": _known(bql.limit) if bql is not None else None,
            }
        )
    return rows


def _known(reading: Any) -> Any:
    return None if isinstance(reading, NotAvailable) else reading


def _ladder(rates: Rates, after: Sample, seconds: float) -> list[Row]:
    rows: list[Row] = []
    for rung in ladders.ladder(Context(after.machine, rates)):
        worst = sorted(rung.counters.items(), key=lambda item: -item[1])[:3]
        rows.append(
            {
                "layer": str(rung.layer),
                "arrived": rung.arrived / seconds if rung.arrived is not None else None,
                "lost": rung.lost / seconds,
                "what": rung.unknown or ", ".join(f"{name} {count}" for name, count in worst),
            }
        )
    own = [row for row in after.drops if row.source != "kernel" and row.kind == "loss"]
    rows.append(
        {
            "layer": "millrace",
            "arrived": None,
            "lost": sum(row.per_second for row in own),
            "what": ", ".join(f"{row.reason} {row.packets}" for row in own[:3] if row.per_second),
        }
    )
    return rows


def _drops(before: Sample, after: Sample, seconds: float) -> list[Row]:
    def key(row: Any) -> tuple[str, ...]:
        return (row.source, row.reason, row.where, row.interface, row.namespace, row.protocol)

    earlier = {key(row): row.packets for row in before.drops}
    rows: list[Row] = []
    for row in after.drops:
        where = f"{row.namespace}/{row.interface}" if row.namespace else row.interface
        rows.append(
            {
                "rate": (row.packets - earlier.get(key(row), 0)) / seconds,
                "packets": row.packets,
                "reason": row.reason,
                "kind": row.kind,
                "where": row.where,
                "interface": where,
                "protocol": row.protocol,
                "source": row.source,
                "example": row.example,
                "why": row.why,
                "remedy": row.remedy,
            }
        )
    return sorted(rows, key=lambda row: (row["kind"] != "loss", -_float(row["rate"])))


def _id(one: Connection) -> tuple[str, str, str, int, str, int]:
    return (one.owner, one.port, one.protocol, one.local_port, one.peer, one.peer_port)


def _connections(sample: Sample) -> list[Connection]:
    found = []
    for socket in sample.machine.sockets or ():
        owner = sample.owners.get(socket.inode, "")
        found.append(netstat.of_socket(socket, owner))
    for process, page in sample.own:
        told = sample.connections.get((process.pid, page.number))
        table = told if told is not None else page.tables.get("connections", ())
        age = 0.0 if told is not None else max(0.0, sample.clock - page.tables_at)
        for name, rows in (("connections", table), *_small(page)):
            found += [netstat.MAKE[name](process, page, row, age) for row in rows]
    return found


def _small(page: Page) -> Iterable[tuple[str, Iterable[Mapping[str, Any]]]]:
    for name in ("listeners", "sockets"):
        yield name, page.tables.get(name, ())


def _sockets(
    connections: Iterable[Connection],
    earlier: Mapping[tuple[str, str, str, int, str, int], Connection],
    seconds: float,
) -> list[Row]:
    rows: list[Row] = []
    for one in connections:
        if one.is_listener:
            continue
        info = one.info
        old = earlier.get(_id(one))
        was = old.info if old is not None else None

        def rate(name: str, info: Mapping[str, int] = info, was: Any = was) -> float | None:
            if was is None or name not in info or name not in was:
                return None
            return difference(was[name], info[name]) / seconds

        rows.append(
            {
                "process": one.process or one.owner,
                "owner": one.owner,
                "port": one.port,
                "protocol": one.protocol,
                "local": one.local_address,
                "peer": one.peer_address,
                "state": one.state,
                "limited_by": limit(info, was) if info and one.state == "ESTAB" else None,
                "recv_q": one.recv_q,
                "send_q": one.send_q,
                "in": rate("bytes_received"),
                "out": rate("bytes_acked"),
                "retransmits": rate("total_retrans"),
                "rtt_us": info.get("rtt") or None,
                "min_rtt_us": info["min_rtt"] if 0 < info.get("min_rtt", 0) < 1 << 31 else None,
                "cwnd": info.get("snd_cwnd"),
                "delivery": info.get("delivery_rate") or None,
                "congestion": one.congestion or None,
                "drops": one.drops,
                "age": round(one.age, 1),
            }
        )
    return sorted(rows, key=lambda row: -(_float(row["in"]) + _float(row["out"])))


def _listeners(connections: Iterable[Connection]) -> list[Row]:
    rows: list[Row] = []
    for one in connections:
        if one.state == "LISTEN":
            rows.append(
                {
                    "local": one.local_address,
                    "process": one.process or one.owner,
                    "owner": one.owner,
                    "waiting": one.recv_q,
                    "limit": one.send_q,
                    "fill": one.recv_q / one.send_q if one.send_q else None,
                }
            )
    return sorted(rows, key=lambda row: -_float(row["fill"]))


def _stacks(before: Sample, after: Sample, seconds: float) -> list[Row]:
    earlier = {(process.pid, page.number): page for process, page in before.own}
    rows: list[Row] = []
    for process, page in after.own:
        rows.append(_stack(process, page, earlier.get((process.pid, page.number)), after.clock))
    return sorted(rows, key=lambda row: -(_float(row["rx"]) + _float(row["tx"])))


def _stack(process: Process, page: Page, old: Page | None, clock: float) -> Row:
    now = page.by_name
    was = old.by_name if old is not None else now

    def passed(group: str, name: str) -> int:
        return difference(was.get((group, name), 0), now.get((group, name), 0))

    # What happened between the two moments in which the numbers were written.
    written = page.values_at - old.values_at if old is not None else 0.0
    seconds = written if written > 0 else 1.0
    rx, tx = passed("port", "rx_packets"), passed("port", "tx_packets")
    idle = passed("channel", "idle_nanoseconds") / 1e9
    busy = min(1.0, max(0.0, 1 - idle / seconds)) if written > 0 else 0.0
    frames = rx + tx
    drops = sum(passed(*key) for key in now if key[0] == "port_drop" or key[1].startswith("drop_"))
    total = now.get(("state", "frames"), 0)
    turns = passed("channel", "turns")
    return {
        "process": process.title,
        "port": page.name,
        "rx": rx / seconds,
        "tx": tx / seconds,
        "bits_in": 8 * passed("port", "rx_bytes") / seconds,
        "bits_out": 8 * passed("port", "tx_bytes") / seconds,
        "burst": rx / passed("port", "rx_bursts") if passed("port", "rx_bursts") else None,
        "completions_a_turn": passed("channel", "completions") / turns if turns else None,
        "busy": busy,
        "ns_per_frame": busy * seconds * 1e9 / frames if frames else None,
        "frames_free": now.get(("state", "frames_free"), 0) / total if total else None,
        "connections": now.get(("state", "connections"), 0),
        "connections_limit": now.get(("state", "connections_most"), 0),
        "sleeps": passed("channel", "sleeps") / seconds,
        "stalls": passed("channel", "transmit_stalls") / seconds,
        "retransmits": passed("stack", "segments_retransmitted") / seconds,
        "drops": drops / seconds,
        # An idle channel has nothing new to write; that is no fault.
        "age": round(max(0.0, clock - page.values_at), 1),
    }


def _interfaces(rates: Rates, seconds: float) -> list[Row]:
    rows: list[Row] = []
    for name, counted in (_try(lambda: rates.links) or {}).items():
        rows.append(
            {
                "interface": name,
                "rx": counted.get("rx_packets", 0) / seconds,
                "tx": counted.get("tx_packets", 0) / seconds,
                "bits_in": 8 * counted.get("rx_bytes", 0) / seconds,
                "bits_out": 8 * counted.get("tx_bytes", 0) / seconds,
                "errors": (counted.get("rx_errors", 0) + counted.get("tx_errors", 0)) / seconds,
                "dropped": (counted.get("rx_dropped", 0) + counted.get("tx_dropped", 0)) / seconds,
            }
        )
    return rows


def _overview(views: Mapping[str, list[Row]], rates: Rates, seconds: float) -> list[Row]:
    def total(view: str, name: str) -> float:
        return sum(_float(row.get(name)) for row in views[view])

    counters = _rated(_try(lambda: rates.counters), seconds)
    segments = counters.get("TcpOutSegs", 0.0)
    again = counters.get("TcpRetransSegs", 0.0)
    losses = [row for row in views["drops"] if row["kind"] == "loss" and _float(row["rate"]) > 0]
    busiest = max(views["cpus"], key=lambda row: _float(row["busy"]), default=None)
    fullest = views["listeners"][0] if views["listeners"] else None
    limits: dict[str, int] = {}
    for row in views["sockets"]:
        side = row["limited_by"]
        if isinstance(side, str) and side != "idle":
            limits[side] = limits.get(side, 0) + 1
    worst = max(views["ladder"], key=lambda row: _float(row["lost"]), default=None)

    def line(what: str, value: float | None, unit: str, note: str = "") -> Row:
        return {"what": what, "value": value, "unit": unit, "note": note}

    busy = _float(busiest["busy"]) if busiest else None
    softirq = f"CPU {busiest['cpu']}, softirq {_float(busiest['softirq']):.0%}" if busiest else ""
    rows = [
        line("received", total("interfaces", "rx"), "pps", _bits(total("interfaces", "bits_in"))),
        line("sent", total("interfaces", "tx"), "pps", _bits(total("interfaces", "bits_out"))),
        line(
            "dropped",
            sum(_float(row["rate"]) for row in losses),
            "pps",
            ", ".join(f"{row['reason']} {_float(row['rate']):.0f}/s" for row in losses[:2]),
        ),
        line(
            "worst rung",
            _float(worst["lost"]) if worst else None,
            "pps",
            f"{worst['layer']} {worst['what']}" if worst and _float(worst["lost"]) else "none",
        ),
        line("busiest CPU", busy, "share", softirq),
        line("TCP sent again", again / segments if segments else 0.0, "share", f"{again:.0f}/s"),
        line(
            "sockets",
            float(len(views["sockets"])),
            "count",
            ", ".join(f"{count} limited by {side}" for side, count in sorted(limits.items())),
        ),
        line(
            "fullest listener",
            _float(fullest["fill"]) if fullest else 0.0,
            "share",
            f"{fullest['local']} {fullest['process']}" if fullest else "no listener",
        ),
        line(
            "Millrace",
            total("stacks", "rx") + total("stacks", "tx"),
            "pps",
            f"{len(views['stacks'])} channels, {total('stacks', 'connections'):.0f} connections, "
            f"{total('stacks', 'drops'):.0f} drops/s",
        ),
    ]
    return rows


def _bits(rate: float) -> str:
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if rate < 1000 or unit == "Gbit/s":
            return f"{rate:.3g} {unit}"
        rate /= 1000
    raise AssertionError("unreachable")
