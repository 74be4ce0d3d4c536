"""A clinic for hosts of the lab."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from millrace.host import Observer, tune
from millrace.host.access import Access
from millrace.host.doctor import examine
from millrace.host.finding import Finding, Verdict
from millrace.lab import Host

LOUD = (Verdict.BAD, Verdict.WARN)


class Clinic:
    """Looks at a host of the lab, mends what is found, and takes it back."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self._folder = folder

    def look(
        self, check: str, act: Callable[[], object] = lambda: None, **options: Any
    ) -> list[Finding]:
        """What one check finds while something happens."""
        with self.host.enter(), Observer() as observer:
            before = observer.snapshot()
            act()
            time.sleep(0.01)  # the window must have a length
            after = observer.snapshot()
        found = list(examine([before, after], checks=[check], **options).findings)
        assert all("a defect of this check" not in one.evidence for one in found)
        return found

    def sick(
        self, check: str, act: Callable[[], object] = lambda: None, **options: Any
    ) -> list[Finding]:
        """As `look`, and it must find something."""
        found = [one for one in self.look(check, act, **options) if one.verdict in LOUD]
        assert found, f"{check} found nothing"
        assert all(one.why and (one.remedy or one.shell) for one in found)
        return found

    def well(self, check: str, act: Callable[[], object] = lambda: None, **options: Any) -> None:
        """As `look`, and it must find nothing."""
        loud = [one for one in self.look(check, act, **options) if one.verdict in LOUD]
        assert not loud, loud

    def mend(self, found: list[Finding]) -> None:
        """Let tune do what the findings say."""
        with self.host.enter(), Access() as access, tune.Journal(1, self._folder) as journal:
            with Observer() as observer:
                plan = tune.plan_of_findings(observer.snapshot(), found)
            assert plan.writes
            results = {step.result for step in tune.apply(plan, tune.Machine(access), journal)}
        assert results <= {tune.Result.WRITTEN, tune.Result.SAME}

    def undo(self) -> None:
        """Let tune take it back."""
        with self.host.enter(), Access() as access, tune.Journal(1, self._folder) as journal:
            results = {step.result for step in tune.undo(tune.Machine(access), journal)}
        assert results == {tune.Result.RESTORED}

    def cured_by_tune(
        self, check: str, act: Callable[[], object] = lambda: None, **options: Any
    ) -> None:
        """Sick, mended by tune, well, taken back, sick again."""
        self.mend(self.sick(check, act, **options))
        self.well(check, act, **options)
        self.undo()
        self.sick(check, act, **options)
