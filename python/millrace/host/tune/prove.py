"""Does it help? A command is measured before and after, and the difference said with its spread."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

#: Resampling is from a seed, so that the same figures give the same judgement.
_SEED = 1
_RESAMPLES = 4000
HANGS_AFTER_SECONDS = 3600.0
_MAX_OUTPUT = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of the command."""

    seconds: float
    cpu_seconds: float
    #: The number that it printed; None if none was asked for.
    metric: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure before and after."""

    what: str
    before: float
    after: float
    #: (largest - smallest) / median of each side.
    spread_before: float
    spread_after: float
    #: How likely a difference as large is by chance alone, 0 to 1.
    chance: float

    @property
    def change(self) -> float:
        """after / before - 1."""
        return self.after / self.before - 1 if self.before else 0.0

    @property
    def judgement(self) -> str:
        """In words."""
        if self.chance > 0.05:
            return "no difference that stands out of the spread"
        return f"{'more' if self.change > 0 else 'less'} by {abs(self.change):.1%}"

    def row(self) -> dict[str, str | float]:
        """A flat row."""
        return {
            "figure": self.what,
            "before": self.before,
            "after": self.after,
            "change_percent": round(100 * self.change, 2),
            "spread_before_percent": round(100 * self.spread_before, 2),
            "spread_after_percent": round(100 * self.spread_after, 2),
            "chance": round(self.chance, 4),
            "judgement": self.judgement,
        }


def measure(
    command: str,
    rounds: int,
    *,
    pattern: str | None = None,
    timeout: float = HANGS_AFTER_SECONDS,
) -> list[Sample]:
    """Run a shell command several times. Raises `RuntimeError` for one that fails.

    `pattern` is a regular expression whose first group is a number in what it prints; without one,
    only time is measured.
    """
    finder = None if pattern is None else _compiled(pattern)
    return [_run(command, finder, timeout) for _ in range(rounds)]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        finder = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if finder.groups < 1:
        raise ValueError(f"{pattern!r} has no group for the number, such as 'rate: ([0-9.]+)'")
    return finder


def _run(command: str, finder: re.Pattern[str] | None, timeout: float) -> Sample:
    used = _children_seconds()
    begun = time.perf_counter()
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise RuntimeError(f"{command!r} did not end within {timeout:g} s") from None
        raise
    seconds = time.perf_counter() - begun
    out = out[-_MAX_OUTPUT:]
    if process.returncode != 0:
        last = out.strip().splitlines()[-1:] or ["it printed nothing"]
        raise RuntimeError(f"{command!r} ended with status {process.returncode}: {last[0]}")
    metric = None
    if finder is not None:
        found = finder.search(out)
        if found is None:
            raise RuntimeError(f"{command!r} printed nothing that matches {finder.pattern!r}")
        try:
            metric = float(found[1].replace(",", ""))
        except ValueError:
            raise RuntimeError(f"{found[1]!r} in what {command!r} printed is no number") from None
    return Sample(seconds, _children_seconds() - used, metric)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(before: Sequence[Sample], after: Sequence[Sample]) -> list[Comparison]:
    """What changed, figure by figure: what it printed first, then time."""
    found = []
    if all(one.metric is not None for one in (*before, *after)):
        found.append(
            _comparison("printed", [one.metric or 0.0 for one in before],
                        [one.metric or 0.0 for one in after])
        )  # fmt: skip
    found.append(
        _comparison("seconds", [one.seconds for one in before], [one.seconds for one in after])
    )
    found.append(
        _comparison(
            "cpu seconds", [one.cpu_seconds for one in before], [one.cpu_seconds for one in after]
        )
    )
    return found


def _comparison(what: str, before: Sequence[float], after: Sequence[float]) -> Comparison:
    return Comparison(
        what, median(before), median(after), _spread(before), _spread(after), chance(before, after)
    )


def _spread(values: Sequence[float]) -> float:
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def chance(before: Sequence[float], after: Sequence[float]) -> float:
    """How often shuffled figures differ as much in their means (a permutation test)."""
    dice = random.Random(_SEED)
    pool = [*before, *after]
    count = len(before)
    seen = abs(sum(before) / count - sum(after) / len(after))
    hits = 0
    for _ in range(_RESAMPLES):
        dice.shuffle(pool)
        left, right = pool[:count], pool[count:]
        hits += abs(sum(left) / len(left) - sum(right) / len(right)) >= seen * (1 - 1e-12)
    return hits / _RESAMPLES
