"""The demo where no network may be had: server and load on two stacks that memory joins.

Server and load are two threads of one process. The native arm is `millrace-bench memory`, where it
is built; the Python arm is a Python program at both ends, so that the two share one interpreter
and each waits while the other runs. No kernel takes part, so there is no kernel arm to compare
with, and the server's time is that of its thread.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable, Sequence

from millrace.bench import binary, figures
from millrace.bench.arms import ARMS, BODY_BYTES, SCENARIOS, Contender, Scenario
from millrace.bench.figures import Outcome, Row, Sample
from millrace.cli.report import Steps

PORT = "memory"

_PATIENCE_SECONDS = 30.0


def measure(*, seconds: float, rounds: int, scenarios: Sequence[Scenario] = SCENARIOS) -> Outcome:
    """Measure Millrace natively, where that is built, and in Python."""
    runners: dict[str, Callable[[Scenario, float], Sample]] = {}
    notes: list[str] = []
    try:
        binary.find()
        runners["native"] = run_native
    except binary.BinaryMissing as missing:
        notes.append(f"The native arm is left out: {missing}.")
    if importlib.util.find_spec("millrace._native") is None:
        notes.append("The Python arm is left out: the native module is not built (make build).")
    else:
        from millrace.bench import memory_python

        runners["python"] = memory_python.run
    if not runners:
        raise RuntimeError(" ".join(notes))
    contenders = {
        arm.language: Contender(arm, PORT)
        for arm in ARMS
        if arm.name == "millrace" and arm.language in runners
    }
    rows: list[Row] = []
    samples: dict[tuple[str, Scenario], list[Sample]] = {
        (language, scenario): [] for scenario in scenarios for language in contenders
    }
    with Steps("demo", total=rounds * len(samples)) as steps:
        for _ in range(rounds):
            for (language, scenario), runs in samples.items():
                steps.begin(f"{contenders[language].title}, {scenario.title}")
                runs.append(runners[language](scenario, seconds))
    for (language, scenario), runs in samples.items():
        rows.append(figures.row(contenders[language], scenario, runs))
    notes.append(
        f"Medians; rounds: {rounds} of {seconds:g} s. Two stacks in one process, a thread each, "
        "no kernel between them. The server's time is its thread's; of a server that spins it "
        "says nothing. In Python the load is a Python program in the same interpreter."
    )
    return Outcome(rows, notes)


def run_native(scenario: Scenario, seconds: float) -> Sample:
    """One run of `millrace-bench memory`."""
    command = [
        *(str(binary.find()), "memory", "--connections", str(scenario.connections)),
        *("--keepalive", "true" if scenario.keepalive else "false", "--wait", scenario.wait),
        *("--seconds", str(seconds), "--body", str(BODY_BYTES)),
    ]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + _PATIENCE_SECONDS
    )
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr.strip().removeprefix(f"{binary.NAME}: "))
    seen = json.loads(ran.stdout)
    if seen["requests"] == 0:
        raise RuntimeError(f"millrace native answered no request, {scenario.title}")
    server_us = seen["server_us"] / seen["requests"]
    return Sample(
        requests=seen["requests"],
        requests_per_s=seen["requests"] / seen["seconds"],
        p50_us=seen["p50_us"],
        p99_us=seen["p99_us"],
        server_core_us=server_us,
        errors=seen["errors"],
        server_process_us=server_us,
    )
