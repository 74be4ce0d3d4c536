"""`millrace netstat`: connections, listeners and routes, the kernel's and our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.cli.report import Value
    from millrace.watch.netstat import Connection, Own

_COLUMNS = ("owner", "protocol", "state", "recv_q", "send_q", "local", "peer", "process")


def command(
    listening: Annotated[bool, typer.Option("-l", "--listening", help="Listeners only.")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="Connections and listeners.")] = False,
    tcp: Annotated[bool, typer.Option("-t", "--tcp", help="TCP only.")] = False,
    udp: Annotated[bool, typer.Option("-u", "--udp", help="UDP only.")] = False,
    memory: Annotated[
        bool, typer.Option("-m", "--memory", help="Memory of each, as skmem.")
    ] = False,
    info: Annotated[bool, typer.Option("-i", "--info", help="What TCP knows of each.")] = False,
    routes: Annotated[bool, typer.Option("-r", "--routes", help="Routes instead.")] = False,
    kernel: Annotated[bool, typer.Option(help="The kernel's.")] = True,
    own: Annotated[bool, typer.Option("--millrace/--no-millrace", help="Millrace's.")] = True,
    port: Annotated[
        list[int] | None, typer.Option(help="With this port at one of the ends; repeatable.")
    ] = None,
    json_file: JsonOption = None,
) -> int:
    """Show connections of the kernel and of Millrace's stacks in one table, as ss does.

    Of a listener, Recv-Q is how many connections wait to be accepted, and Send-Q how many may.
    With -i and -m the words and units are those of ss; JSON has everything always.
    """
    from millrace.cli.report import check_json_file, show
    from millrace.watch import netstat, processes

    check_json_file(json_file)
    found = processes.find()
    if routes:
        return _routes(kernel, own, json_file)
    mine = netstat.of_millrace(found) if own else netstat.Own((), (), ())
    rows = [*mine.connections, *(_kernel_sockets() if kernel else ())]
    wanted = [
        one
        for one in rows
        if one.is_listener == listening or every
        if not (tcp or udp) or (tcp and one.protocol == "tcp") or (udp and one.protocol == "udp")
        if not port or one.local_port in port or one.peer_port in port
    ]
    wanted.sort(key=lambda one: (one.owner == netstat.KERNEL, one.state, one.local_address))
    flat = [_flat(one) for one in wanted]
    if memory or info:
        # Too long for a table: each row has lines below it, as with ss.
        _lines(wanted, memory, info)
        if json_file is not None:
            from millrace.cli.report import write_json

            write_json(flat, json_file)
    else:
        show(flat, columns=_COLUMNS, json_file=json_file)
    _say(mine, len(wanted), len(rows))
    return 0


def _kernel_sockets() -> list[Connection]:
    from millrace.host import Observer
    from millrace.watch import netstat

    with Observer() as observer:
        snapshot = observer.snapshot(("sockets", "processes"))
    for part, missing in snapshot.missing().items():
        typer.echo(f"the kernel's {part}: {missing}", err=True)
    return netstat.of_kernel(snapshot)


def _routes(kernel: bool, own: bool, json_file: str | None) -> int:
    from dataclasses import asdict

    from millrace.cli.report import show
    from millrace.host import Observer
    from millrace.watch import netstat, processes

    mine = netstat.of_millrace(processes.find(), ("routes",)) if own else None
    rows = list(mine.routes) if mine is not None else []
    if kernel:
        with Observer() as observer:
            rows += netstat.kernel_routes(observer.snapshot(("routes", "links")))
    show([asdict(row) for row in rows], json_file=json_file)
    if mine is not None:
        _say(mine, len(rows), len(rows))
    return 0


def _flat(one: Connection) -> dict[str, Value]:
    row: dict[str, Value] = {
        "owner": one.owner,
        "port": one.port,
        "protocol": one.protocol,
        "state": one.state,
        "recv_q": one.recv_q,
        "send_q": one.send_q,
        "local": one.local_address,
        "peer": one.peer_address,
        "process": one.process,
        "uid": one.uid,
        "inode": one.inode,
        "congestion": one.congestion,
        "limited_by": one.limited_by,
        "drops": one.drops,
        "age_s": round(one.age, 3),
    }
    row |= {f"skmem_{name}": value for name, value in one.memory.items()}
    row |= {f"tcpi_{name}": value for name, value in one.info.items()}
    return row


def _lines(rows: list[Connection], memory: bool, info: bool) -> None:
    from millrace.watch import netstat

    for one in rows:
        typer.echo(
            f"{one.owner:<20} {one.protocol:<4} {one.state:<10} {one.recv_q:>7} {one.send_q:>7} "
            f"{one.local_address:<24} {one.peer_address:<24} {one.process}"
        )
        below = [netstat.memory_text(one)] if memory else []
        if info:
            below.append(netstat.info_text(one))
            below.append(f"limited by: {one.limited_by}" if one.limited_by else "")
        text = " ".join(part for part in below if part)
        if text:
            typer.echo(f"\t {text}")


def _say(mine: Own, shown: int, there: int) -> None:
    for problem in mine.problems:
        typer.echo(problem, err=True)
    if not shown:
        which = f"none of {there} fits" if there else "there is none"
        typer.echo(f"nothing to show: {which}", err=True)
