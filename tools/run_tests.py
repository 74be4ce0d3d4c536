"""Run every check and test, go on after a failure, and end with one count.

    .venv/bin/python tools/run_tests.py [STAGE...]

A check (formatting, lints, types, stubs) counts as one; cargo's and pytest's tests count each. A
Rust test that cannot run here prints `SKIP <test>: <reason>` and returns; it counts as skipped.
Nothing but the standard library is used, so it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# No criterion, only an end to waiting for something that hangs.
HANGS_AFTER_SECONDS = 40 * 60.0


@dataclass
class Count:
    """What one stage, or all of them, came to."""

    passed: int = 0
    failed: int = 0
    skips: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skips += other.skips
        self.failures += other.failures

    def line(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {len(self.skips)} skipped"


def count_check(status: int, _output: str) -> Count:
    return Count(passed=1) if status == 0 else Count(failed=1)


_RESULT = re.compile(r"^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
_FAILED = re.compile(r"^test (.+) \.\.\. FAILED$", re.MULTILINE)
_IGNORED = re.compile(r"^test (.+) \.\.\. ignored(?:, (.*))?$", re.MULTILINE)
_SKIP = re.compile(r"^SKIP ([^\s:]+(?:::[^\s:]+)*): (.+)$", re.MULTILINE)


def count_cargo(status: int, output: str) -> Count:
    """Add up the results of every test program that one `cargo test` ran."""
    count = Count()
    begin = 0
    for result in _RESULT.finditer(output):
        program = output[begin : result.end()]
        begin = result.end()
        said = dict(_SKIP.findall(program))  # a test may say it more than once
        count.passed += int(result[1]) - len(said)
        count.failed += int(result[2])
        count.skips += [f"{test}: {reason}" for test, reason in said.items()]
        for test, reason in _IGNORED.findall(program):
            # A process that another test starts through the same program is no test of its own.
            if reason.startswith("not a test"):
                continue
            count.skips.append(f"{test}: {reason or 'ignored without a reason'}")
        count.failures += _FAILED.findall(program)
    if count.failed == 0 and (status != 0 or begin == 0):
        count.failed = 1
        count.failures.append("cargo test did not build or did not finish")
    return count


def count_pytest(status: int, report: Path) -> Count:
    """Read pytest's report in the JUnit form."""
    count = Count()
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        cases = []
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            count.failed += 1
            count.failures.append(name)
        elif skip is not None:
            count.skips.append(f"{name}: {skip.get('message')}")
        else:
            count.passed += 1
    if count.failed == 0 and (status != 0 or not cases):
        count.failed = 1
        count.failures.append("pytest did not run to its end")
    return count


@dataclass(frozen=True)
class Stage:
    """One command, and how to count what it says."""

    name: str
    command: list[str]
    count: Callable[[int, str], Count] = count_check
    environment: Mapping[str, str] = field(default_factory=dict)


def stages(report: Path) -> list[Stage]:
    """All stages, the quick ones first."""
    python = sys.executable
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    # `--show-output`, because a skip is announced by a test that passes.
    show = ["--", "--show-output"]
    clippy = ["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]
    # What is private may be named: these pages are for who works on the code.
    links = "-D rustdoc::broken_intra_doc_links -A rustdoc::private_intra_doc_links"
    rustdoc = ["cargo", "doc", "--workspace", "--no-deps", "--document-private-items"]
    loom = ["cargo", "test", "-p", "millrace-frames", "--lib", "--release", "loom"]
    return [
        Stage("rustfmt", ["cargo", "fmt", "--all", "--check"]),
        Stage("ruff-check", [python, "-m", "ruff", "check", "."]),
        Stage("ruff-format", [python, "-m", "ruff", "format", "--check", "."]),
        Stage("mypy", [python, "-m", "mypy", "--strict", "python/millrace"]),
        Stage("stubs", [python, "-m", "mypy.stubtest", "millrace._native"]),
        Stage("clippy", clippy),
        # A link in a comment that leads nowhere is a comment that was forgotten.
        Stage("rustdoc", rustdoc, environment={"RUSTDOCFLAGS": links}),
        Stage("cargo", ["cargo", "test", "--workspace", "--no-fail-fast", *show], count_cargo),
        Stage(
            "loom",
            [*loom, *show],
            count_cargo,
            # Other flags would make cargo build everything else anew each time.
            {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": str(target / "loom")},
        ),
        Stage(
            "pytest",
            [python, "-m", "pytest", f"--junitxml={report}"],
            lambda status, _: count_pytest(status, report),
        ),
    ]


def run(stage: Stage) -> Count:
    """Run one stage, with its output on this program's output as it comes."""
    print(f"\n=== {stage.name}: {' '.join(stage.command)}", flush=True)
    begun = time.monotonic()
    try:
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, "CARGO_TERM_COLOR": "never", **stage.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        print(f"{stage.command[0]}: {error.strerror}")
        count = Count(failed=1)
    else:
        output = "".join(lines_of(process, begun + HANGS_AFTER_SECONDS))
        count = stage.count(process.returncode, output)
    if count.failed and not count.failures:
        count.failures.append(stage.name)
    print(f"=== {stage.name}: {count.line()} in {time.monotonic() - begun:.0f} s", flush=True)
    return count


def lines_of(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """What a program writes, printed and given line by line until it ends or is stopped."""

    def stop(*_: object) -> None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    def hang(*_: object) -> None:
        print(f"stopped: it ran for more than {HANGS_AFTER_SECONDS:.0f} s", flush=True)
        stop()

    assert process.stdout is not None
    previous = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, deadline - time.monotonic()))
    with process:
        try:
            for line in process.stdout:
                text = line.decode(errors="replace")
                sys.stdout.write(text)
                sys.stdout.flush()
                yield text
        except BaseException:
            stop()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def main(wanted: list[str]) -> int:
    """Run the stages, print the count, give the exit status."""
    total = Count()
    with tempfile.TemporaryDirectory() as folder:
        every = stages(Path(folder, "pytest.xml"))
        unknown = set(wanted) - {stage.name for stage in every}
        if unknown:
            names = " ".join(stage.name for stage in every)
            print(f"no stage {', '.join(sorted(unknown))}; there are: {names}", file=sys.stderr)
            return 2
        for stage in every:
            if not wanted or stage.name in wanted:
                total.add(run(stage))
    print()
    for skip in total.skips:
        print(f"skipped {skip}")
    for failure in total.failures:
        print(f"FAILED {failure}")
    print(total.line())
    return 1 if total.failed else 0


if __name__ == "__main__":
    # A stage leads a session of its own, so it ends only if it is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
