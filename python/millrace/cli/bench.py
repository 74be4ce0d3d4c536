"""`millrace bench`: measurements of parts, beside others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from millrace.cli.report import JsonOption, Row

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Measure parts of Millrace beside others."""


@app.command()
def stack(
    json_file: JsonOption = None,
    seconds: Annotated[float, typer.Option(help="Length of one run.", min=0.01)] = 1.0,
    rounds: Annotated[int, typer.Option(help="Runs of each row.", min=1)] = 3,
    work: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="rr64, rr1k, crr, bulk, bulk_super, idle; repeatable."),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="millrace, smoltcp; repeatable.")
    ] = None,
) -> None:
    """Join two stacks by memory in one thread, without a kernel, beside smoltcp.

    rr64 and rr1k: request and response of 64 and 1024 bytes. crr: connect, request, response,
    close. bulk, bulk_super: one direction, in packets of 1460 and up to 64 Ki bytes (operations of
    64 KiB). idle: resident memory of a connection that does nothing.
    """
    import contextlib
    import sys

    from millrace.bench import stack as stack_bench
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    rows = stack_bench.measure(seconds=seconds, rounds=rounds, works=work or (), arms=arm or ())
    show(rows, title="Two stacks joined by memory, one thread", json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        if compared := stack_bench.held(rows):
            show(compared, title="Millrace beside smoltcp")
        print(
            f"Medians; rounds: {rounds} of {seconds:g} s, the arms in turn. Seconds are processor "
            "time. A segment's time is "
            "that of both sides and their programs. smoltcp has no super-segments: it has an MTU "
            "of 65,535 and no checksums there."
        )


@app.command()
def links(
    json_file: JsonOption = None,
    loss: Annotated[
        list[str] | None, typer.Option(metavar="LOSS", help='Such as "1%" or 0.01; repeatable.')
    ] = None,
    rtt: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help='Round-trip time, such as "20ms"; repeatable.'),
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(metavar="RATE", help='Such as "100M"; repeatable.')
    ] = None,
    queue: Annotated[
        list[float] | None,
        typer.Option(metavar="BDP", help="Bandwidth-delay products, such as 0.1; repeatable."),
    ] = None,
    reorder: Annotated[
        bool | None, typer.Option(help="Only links that reorder packets, or only others.")
    ] = None,
    congestion: Annotated[
        list[str] | None,
        typer.Option("--cc", metavar="NAME", help="Congestion control; repeatable."),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="millrace, linux; repeatable.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Length of one flow: 2 to 10 by cell, with --fairness 20 to 224.", min=0.5
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(help="Flows of each arm in each cell.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="The wires' dice.", min=0)] = 1,
    port: Annotated[str, typer.Option(help="Our stack's: af_packet or af_xdp.")] = "af_packet",
    log_file: Annotated[
        str | None,
        typer.Option("--log", metavar="FILE", help="Note each flow here; take from it what is."),
    ] = None,
    most: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help='Begin no flow after, such as "100s".'),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Twelve of the cells, flows of 2 s, once.")
    ] = False,
    fairness: Annotated[
        bool,
        typer.Option(
            "--fairness", help="Two flows share a link: ours and Linux's, and Linux's alone."
        ),
    ] = False,
    short: Annotated[
        bool, typer.Option("--short", help="How long flows of 10 and 100 KiB take.")
    ] = False,
    count: Annotated[int, typer.Option(help="Short flows in each cell.", min=1)] = 400,
) -> None:
    """Send over the same bad link with our stack and with Linux's.

    One flow, its goodput at a kernel's socket; the arms take turns. By default every combination of
    loss 0, 0.1, 1, 3 and 10 %, round trips of 1, 20 and 100 ms, with and without reordering, queues
    of 0.1 and 1 bandwidth-delay product, 100 Mbit/s and 1 Gbit/s, cubic and bbr. That is 240 cells
    and takes hours. With --log it may be interrupted, and goes on where it was; with --for too it
    stops by itself, and exits with 75 while flows are left. What another build of the stack sent is
    measured again.
    """
    import contextlib
    import sys

    from millrace.bench import link_cells, link_rows
    from millrace.bench import links as bench
    from millrace.bench.link_log import Log
    from millrace.cli.report import check_json_file, show, write_json
    from millrace.lab import impairment

    check_json_file(json_file)

    def keep(rows: Sequence[Row]) -> None:
        if json_file not in (None, "-"):
            write_json(rows, json_file)

    for name in arm or ():
        if name not in link_rows.ARMS:
            raise ValueError(f"no arm {name!r}; there is {', '.join(link_rows.ARMS)}")
    if fairness and short:
        raise ValueError("--fairness and --short are two measurements; ask for one")
    if (log_file is not None or most is not None) and (fairness or short):
        raise ValueError("--log and --for are for the table of goodputs")
    if most is not None and log_file is None:
        raise ValueError("--for takes --log: what was measured would be lost")
    time = None if most is None else impairment.time("--for", most)
    losses = [impairment.probability("--loss", text) for text in loss or ()]
    rtts = [impairment.time("--rtt", text) * 1e3 for text in rtt or ()]
    rates = [impairment.rate("--rate", text) / 1e6 for text in rate or ()]
    orders = (False, True) if reorder is None else (reorder,)
    names = congestion or link_cells.CONGESTION
    if short:
        outcome = bench.short(
            port=port,
            congestion=names,
            losses=losses or bench.SHORT_LOSSES,
            count=count,
            seed=seed,
            repeat=1 if quick else repeat,
        )
        title = "Short flows: time from connecting to the peer's end"
    else:
        if quick:
            seconds, repeat = min(seconds or 2.0, 2.0), 1
        narrow = quick or fairness
        usual = (20.0,) if fairness else link_cells.ROUND_TRIPS_MS
        cells = link_cells.cells(
            congestion=names,
            losses=losses or ((0.0, 0.01) if narrow else link_cells.LOSSES),
            rtts_ms=rtts or usual,
            reorder=(False,) if narrow and reorder is None else orders,
            queues_bdp=queue or ((1.0,) if narrow else link_cells.QUEUES_BDP),
            rates_mbit=rates or ((100.0,) if narrow else link_cells.RATES_MBIT),
        )
        if fairness:
            outcome = bench.fairness(
                cells, port=port, seconds=seconds, repeat=repeat, seed=seed, keep=keep
            )
            title = "Ours and Linux's flow on one link"
        else:
            outcome = bench.measure(
                cells,
                port=port,
                seconds=seconds,
                repeat=repeat,
                seed=seed,
                arms=arm or link_rows.ARMS,
                keep=keep,
                log=Log(log_file),
                time=time,
            )
            title = "One flow over a bad link"
    show(outcome.rows, title=title, json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        if outcome.compared:
            show(outcome.compared, title="Millrace beside Linux")
        for note in outcome.notes:
            print(note)
    if outcome.left:
        # EX_TEMPFAIL of sysexits.h: come again.
        raise typer.Exit(75)


@app.command()
def attack(
    json_file: JsonOption = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="syn, rst-near, slow-readers, ...; repeatable."),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="millrace, linux; repeatable.")
    ] = None,
    pps: Annotated[
        int, typer.Option(help="Packets a second at most; 0: as many as go.", min=0)
    ] = 0,
    connections: Annotated[
        int, typer.Option(help="Of attacks that hold connections.", min=1, max=50_000)
    ] = 1000,
    rate: Annotated[
        float, typer.Option(help="Requests a second on connections that are kept.", min=1)
    ] = 2000.0,
    new_rate: Annotated[
        float, typer.Option(help="Requests a second on new connections.", min=0)
    ] = 300.0,
    seconds: Annotated[float, typer.Option(help="Before, and during an attack.", min=1)] = 5.0,
    port: Annotated[str, typer.Option(help="Our stack's: af_packet or af_xdp.")] = "af_packet",
) -> None:
    """Attack a server and see what its well-behaved clients see.

    Floods of SYNs, ACKs, resets and FINs from random addresses and, near their windows, in the name
    of the clients; slow readers and writers; peers that fill queues. Each on our server and, for
    comparison, on a kernel's.
    """
    import contextlib
    import sys

    from millrace.bench import attack as bench
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    for given, known, what in ((kind, bench.ATTACKS, "attack"), (arm, bench.ARMS, "arm")):
        for name in given or ():
            if name not in known:
                raise ValueError(f"no {what} {name!r}; there is {', '.join(known)}")
    outcome = bench.measure(
        kind or list(bench.ATTACKS),
        arms=arm or bench.ARMS,
        port=port,
        load=bench.Load(rate, new_rate),
        seconds=seconds,
        pps=pps,
        connections=connections,
    )
    hidden = ("counted", "attacker", "preferred", "missed_during", "memory_mib_after")
    columns = [name for name in outcome.rows[0] if name not in hidden]
    show(outcome.rows, title="A server under attack", columns=columns, json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        for note in outcome.notes:
            print(note)


@app.command()
def integrity(
    json_file: JsonOption = None,
    runs: Annotated[int, typer.Option(help="Connections in all.", min=1)] = 208,
    seed: Annotated[int, typer.Option(help="Where sizes, orders and losses start.", min=0)] = 1,
    wire: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A condition by name; repeatable.")
    ] = None,
) -> int:
    """Our stack against Linux's on bad wires, both ways: every byte once and in order, no hang.

    Sizes, pieces, who opens, who shuts first and who aborts come from the seed. Both sides hash
    what they receive. Exit status 1 if anything is wrong.
    """
    from millrace.bench.integrity import measure
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    rows: list[Row] = []
    wrong: list[str] = []
    for row, said in measure(runs=runs, seed=seed, conditions=wire or ()):
        rows.append(row)
        wrong += said
    show(rows, title="Connections between our stack and Linux's", json_file=json_file)
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        typer.echo(
            f"to see it again: millrace bench integrity --runs {runs} --seed {seed}", err=True
        )
    return 1 if wrong else 0


@app.command()
def host(
    json_file: JsonOption = None,
    batches: Annotated[int, typer.Option(help="Batches of each step.", min=1, max=1000)] = 15,
    runs: Annotated[int, typer.Option(help="Runs of the doctor.", min=1)] = 5,
) -> None:
    """What one step costs on this machine: caches, memory, system call, switches, loopback.

    Beside what others published, and with the time that a run of the doctor takes.
    """
    import contextlib
    import sys

    from millrace.bench.host import measure
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    outcome = measure(batches=batches, runs=runs)
    show(outcome.rows, title="One step on this machine, nanoseconds", json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        for note in outcome.notes:
            print(note)


@app.command()
def drops(
    json_file: JsonOption = None,
    seconds: Annotated[float, typer.Option(help="Length of one run.", min=0.05)] = 0.4,
    rounds: Annotated[int, typer.Option(help="Runs of each arm.", min=1)] = 12,
) -> None:
    """Drop packets as fast as one core can, with and without `millrace drops` watching.

    off: nobody watches. counting: every drop is counted. sampling: as well a few frames a second
    are kept, as the command does it. Takes root.
    """
    from millrace.bench import drops as bench
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    rows = bench.measure(seconds, rounds)
    show(rows, title="Drops on one core, watched and unwatched", json_file=json_file)


@app.command()
def top(
    json_file: JsonOption = None,
    seconds: Annotated[float, typer.Option(help="Length of one run.", min=1.0)] = 15.0,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
) -> None:
    """Measure what `millrace top` costs: processor time of a look, on the screen and as JSON."""
    from millrace.bench import top as bench
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    rows = bench.measure(seconds, interval)
    show(rows, title="Processor time of millrace top", json_file=json_file)


@app.command()
def xdp(
    json_file: JsonOption = None,
    program: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One of the seven; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each arm.", min=1)] = 7,
    dropping: Annotated[
        bool, typer.Option("--drop", help="Drop frames on a veth pair, and count them.")
    ] = False,
) -> None:
    """Run XDP programs from Python beside the same in C by clang -O2. Takes root.

    Instructions, and nanoseconds a frame by BPF_PROG_TEST_RUN; with --drop, frames that programs
    which drop all have dropped on a veth pair, and at what rate. Without clang there is no ratio.
    """
    from millrace.bench import xdp as bench
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    if dropping:
        rows = bench.drop_rates(program or ("shield", "blocklist"), rounds=rounds)
        show(rows, title="Frames dropped on veth", json_file=json_file)
        return
    rows = bench.measure(program or (), rounds=rounds)
    show(rows, title="XDP programs from Python and from C", json_file=json_file)


@app.command()
def packets(
    json_file: JsonOption = None,
    plots: Annotated[
        str | None,
        typer.Option("--plot", metavar="DIR", help="Write the tables as SVG; takes matplotlib."),
    ] = None,
    work: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="rxdrop, txpush, l2fwd; repeatable.")
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="af_xdp, af_packet; repeatable.")
    ] = None,
    size: Annotated[list[int] | None, typer.Option(help="Bytes of a frame; repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="1 to 64; repeatable.")] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="millrace, testpmd, scapy; repeatable."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="NAME", help="memory, modes, capture, none; repeatable."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of one run.", min=0.05)] = None,
    rounds: Annotated[int | None, typer.Option(help="Runs of each row.", min=1)] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="64 bytes, batches of 1 and 64: two minutes.")
    ] = False,
) -> None:
    """Receive, send and forward packets on veth pairs, beside DPDK's testpmd and Scapy.

    rxdrop, txpush, l2fwd: receive and drop, transmit, forward at layer 2. headers, filter: the
    table of headers and a filter, in memory. echo, read: the two modes of a port. capture: packets
    kept in a file beside tcpdump, at several offered rates. Every run says
    what was offered and delivered, and drop counters make up the rest to the frame. As root on
    Debian a missing testpmd is installed; elsewhere it is left out, and that is said.
    """
    import contextlib
    import dataclasses
    import sys

    from millrace.bench import packet_plots
    from millrace.bench import packets as bench
    from millrace.cli.report import Steps, check_json_file, show

    check_json_file(json_file)
    if plots is not None:
        packet_plots.check(plots)
    usual = bench.QUICK if quick else bench.Plan()
    wanted: dict[str, Any] = {
        "works": work,
        "kinds": port,
        "sizes": size,
        "batches": batch,
        "tools": tool,
        "more": None if more is None else [name for name in more if name != "none"],
        "seconds": seconds,
        "rounds": rounds,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    plan = dataclasses.replace(usual, **given)
    with Steps("measuring", bench.steps(plan)) as steps:
        outcome = bench.measure(plan, steps.begin)
    rows = outcome.rows
    show(rows, title="Raw packets on veth", columns=bench.COLUMNS, json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        if outcome.compared:
            show(outcome.compared, title="Beside the targets")
        for note in outcome.notes:
            print(note)
        if plots is not None:
            for file in packet_plots.write(rows, plots):
                print(f"wrote {file}")
