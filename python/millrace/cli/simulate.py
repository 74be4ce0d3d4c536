"""`millrace simulate`: networks of our stacks in virtual time, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.cli.report import Value
    from millrace.lab.simulation import Flow, Result, Simulation


_LAST_SEED = (1 << 64) - 1


def command(
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SCENARIO.py]",
            help="A file with a function scenario(sim) and, if it likes, check(result).",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    function: Annotated[str, typer.Option(help="The scenario's name in its file.")] = "scenario",
    seed: Annotated[int, typer.Option(help="Where all dice start.", min=0, max=_LAST_SEED)] = 0,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="So many seeds, from --seed on.", min=1)
    ] = 1,
    until: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds of virtual time; by default to the end.", min=0),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Packets of all wires as pcapng, for Wireshark."),
    ] = None,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="Hosts have IPv6 addresses too.")] = False,
    random: Annotated[
        bool,
        typer.Option("--random", help="The random world of the seed, instead of a scenario."),
    ] = False,
    integrity: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Judge N random worlds, from --seed on: every byte once and in order or an "
            "error, no hang, no frame left behind.",
            min=1,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Random worlds at a time.", min=1)] = 1,
    json_file: JsonOption = None,
) -> int:
    """Run a network of our stacks in virtual time.

    The same seed gives the same packets, to the byte. A seed that fails is named with the command
    that replays it.
    """
    from millrace.cli.report import check_json_file

    check_json_file(json_file)
    chosen = [scenario is not None, random, integrity is not None]
    if sum(chosen) != 1:
        raise ValueError("name one thing to simulate: a SCENARIO.py, --random or --integrity N")
    if scenario is None:
        given = {
            "--function": function != "scenario",
            "--seeds": seeds > 1,
            "--until": until is not None,
            "--ipv6": ipv6,
        }
        if any(given.values()):
            names = ", ".join(name for name in given if given[name])
            raise ValueError(f"{names} is for a scenario; a random world has its own")
    if jobs > 1 and integrity is None:
        raise ValueError("--jobs is for --integrity")
    if seed + max(seeds, integrity or 1) - 1 > _LAST_SEED:
        raise ValueError(f"the last seed is {_LAST_SEED}")
    if trace is not None and (integrity is not None or seeds > 1):
        raise ValueError("--trace is for one seed")
    if integrity is not None:
        return _integrity(seed, integrity, jobs, json_file)
    if random:
        return _random(seed, trace)
    assert scenario is not None
    return _scenario(scenario, function, range(seed, seed + seeds), until, trace, ipv6, json_file)


def _scenario(
    path: Path,
    function: str,
    seeds: range,
    until: float | None,
    trace: Path | None,
    ipv6: bool,
    json_file: str | None,
) -> int:
    from millrace.cli.report import show
    from millrace.lab.simulation import replay_command, simulate

    run, check = _load(path, function)
    rows: list[dict[str, Value]] = []
    failed = 0
    for seed in seeds:
        try:
            result = simulate(run, seed=seed, until=until, trace=trace, ipv6=ipv6)
            if result.violations:
                raise AssertionError("; ".join(result.violations))
            if check is not None:
                check(result)
        except Exception as error:
            failed += 1
            said = str(error) or "without a word"
            again = replay_command(path, function, seed, ipv6=ipv6, until=until)
            typer.echo(f"seed {seed} failed: {type(error).__name__}: {said}", err=True)
            typer.echo(f"to see it again: {again}", err=True)
            if len(seeds) == 1 and not isinstance(error, AssertionError):
                raise
            continue
        rows += [_row(result, flow) for flow in result.flows]
        if len(seeds) == 1:
            typer.echo(
                f"{result.seconds:.3f} s, {result.events:,} events, digest {result.digest}",
                err=True,
            )
    if rows:
        show(rows, json_file=json_file)
    if len(seeds) > 1:
        typer.echo(f"{len(seeds)} seeds, {failed} failed", err=True)
    return 1 if failed else 0


def _load(
    path: Path, function: str
) -> tuple[Callable[[Simulation], object], Callable[[Result], object] | None]:
    import runpy
    import sys

    # What lies beside it may be imported, as when Python runs the file.
    sys.path.insert(0, str(path.resolve().parent))
    names: dict[str, Any] = runpy.run_path(str(path))
    run = names.get(function)
    if not callable(run):
        raise ValueError(f"{path} has no function {function}(sim)")
    check = names.get("check")
    return run, check if callable(check) else None


def _row(result: Result, flow: Flow) -> dict[str, Value]:
    import os

    client, server = flow.sides
    errno = client.errno or server.errno
    return {
        "seed": result.seed,
        "client": flow.client,
        "server": flow.server,
        "port": flow.port,
        "start_s": round(flow.started, 6),
        "seconds": flow.duration,
        "sent": client.written,
        "received": client.received,
        "mbit_per_s": flow.goodput * 1e-6,
        "complete": flow.complete,
        "failure": None if errno is None else os.strerror(errno),
    }


def _random(seed: int, trace: Path | None) -> int:
    from millrace._native import random_world

    found = random_world(seed, trace=trace)
    typer.echo(found["description"])
    for line in found["wrong"]:
        typer.echo(f"wrong: {line}", err=True)
    if found["wrong"]:
        return 1
    typer.echo(
        f"kept its promises: {found['connections']} connections, {found['complete']} complete, "
        f"{found['seconds']:.3f} s, {found['events']:,} events, digest {found['digest']}"
    )
    return 0


def _integrity(first: int, count: int, jobs: int, json_file: str | None) -> int:
    from concurrent.futures import ThreadPoolExecutor

    from millrace._native import random_world
    from millrace.cli.report import Steps, show

    broken: list[int] = []
    connections = complete = events = 0
    step = max(1, count // 20)
    with ThreadPoolExecutor(jobs) as pool, Steps("simulating", total=-(-count // step)) as steps:
        worlds = pool.map(random_world, range(first, first + count))
        for seed, found in zip(range(first, first + count), worlds, strict=True):
            if (seed - first) % step == 0:
                steps.begin(f"from seed {seed}")
            if found["wrong"]:
                broken.append(seed)
                lines = "\n  ".join(line[:500] for line in found["wrong"])
                typer.echo(f"seed {seed} is broken:\n  {lines}", err=True)
                typer.echo(
                    f"to see it again: millrace simulate --random --seed {seed} "
                    f"--trace seed-{seed}.pcapng",
                    err=True,
                )
                continue
            connections += found["connections"]
            complete += found["complete"]
            events += found["events"]
    row: dict[str, Value] = {
        "worlds": count,
        "first_seed": first,
        "broken": len(broken),
        "connections": connections,
        "complete": complete,
        "events": events,
    }
    show([row], title="random worlds", json_file=json_file)
    return 1 if broken else 0
