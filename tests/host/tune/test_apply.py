"""Plans are written, read back and taken back; whatever ends the process, nothing is lost."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from millrace.host.access import Access
from millrace.host.targets import Target
from millrace.host.tune import Journal, Machine, Plan, Result, apply, status, undo
from millrace.host.tune.journal import Entry, State, encode
from millrace.host.tune.plan import Write
from millrace.lab import Lab, syscalls

OLD = {
    "/proc/sys/net/core/somaxconn": "128",
    "/proc/sys/vm/swappiness": "60",
    "/proc/irq/38/smp_affinity_list": "0-7",
    "/sys/class/net/eth0/queues/rx-0/rps_cpus": "00000000",
    "/proc/sys/kernel/random/boot_id": "boot-1",
}

PLAN = Plan(
    "a test",
    "eth0",
    "throughput",
    (
        Write("sysctl:net.core.somaxconn", "128", "4096", "bursts fit"),
        Write("file:/proc/irq/38/smp_affinity_list", "0-7", "2", "spread"),
        Write("file:/sys/class/net/eth0/queues/rx-0/rps_cpus", "0", "ff", "spread"),
        Write("sysctl:vm.swappiness", "60", "10", "in memory"),
    ),
)

NEW = {
    "/proc/sys/net/core/somaxconn": "4096",
    "/proc/irq/38/smp_affinity_list": "2",
    "/sys/class/net/eth0/queues/rx-0/rps_cpus": "ff",
    "/proc/sys/vm/swappiness": "10",
}


class Patient:
    """A copy of a machine's files, and the folder of its journal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.access = Access(root)
        self.machine = Machine(self.access)

    def journal(self) -> Journal:
        return Journal(1, self.state)

    def values(self) -> dict[str, str]:
        return {path: (self.root / path[1:]).read_text().strip() for path in NEW}

    def set(self, path: str, value: str) -> None:
        (self.root / path[1:]).write_text(value)

    def apply(self, plan: Plan = PLAN, machine: Machine | None = None) -> list[Any]:
        with self.journal() as journal:
            return list(apply(plan, machine or self.machine, journal))

    def undo(self, machine: Machine | None = None) -> list[Any]:
        with self.journal() as journal:
            return list(undo(machine or self.machine, journal))

    def saved(self) -> State:
        with self.journal() as journal:
            return journal.state()


@pytest.fixture
def patient(tree: Any) -> Patient:
    return Patient(tree(OLD))


ORIGINAL = {path: OLD[path] for path in NEW}


def results(steps: list[Any]) -> list[str]:
    return [str(step.result) for step in steps]


def test_written_and_taken_back(patient: Patient) -> None:
    assert results(patient.apply()) == ["written"] * 4
    assert patient.values() == NEW
    assert results(list(status(patient.machine, patient.saved()))) == ["ours"] * 4
    steps = patient.undo()
    assert results(steps) == ["restored"] * 4
    assert [step.target for step in steps] == [one.target for one in reversed(PLAN.writes)]
    assert patient.values() == ORIGINAL
    assert patient.saved() == State()
    assert patient.undo() == []


def test_a_second_run_changes_nothing(patient: Patient) -> None:
    patient.apply()
    assert results(patient.apply()) == ["same"] * 4
    patient.undo()
    assert patient.values() == ORIGINAL


def test_runs_on_top_of_each_other(patient: Patient) -> None:
    patient.apply()
    more = Plan("more", "", "", (Write("sysctl:net.core.somaxconn", "4096", "9000", "more"),))
    patient.apply(more)
    assert patient.values()["/proc/sys/net/core/somaxconn"] == "9000"
    patient.undo()
    assert patient.values() == ORIGINAL


def test_what_others_changed_is_left_and_named(patient: Patient) -> None:
    patient.apply()
    patient.set("/proc/sys/vm/swappiness", "33")
    found = {step.title: step.result for step in status(patient.machine, patient.saved())}
    assert found["vm.swappiness"] is Result.CHANGED
    steps = {step.title: step for step in patient.undo()}
    assert steps["vm.swappiness"].result is Result.CHANGED
    assert "it was 10 when we left it" in steps["vm.swappiness"].remark
    assert steps["net.core.somaxconn"].result is Result.RESTORED
    assert patient.values() == ORIGINAL | {"/proc/sys/vm/swappiness": "33"}
    # It is no longer ours, so a second undo has nothing to say.
    assert patient.undo() == []


def test_what_is_gone_is_told(patient: Patient) -> None:
    patient.apply()
    (patient.root / "proc/irq/38/smp_affinity_list").unlink()
    steps = {step.title: step for step in patient.undo()}
    gone = steps["/proc/irq/38/smp_affinity_list"]
    assert (gone.result, gone.remark) == (Result.GONE, "No such file or directory")
    assert results(list(steps.values())).count("restored") == 3


class Refusing(Machine):
    """The kernel refuses some writes."""

    def __init__(self, access: Access, name: str, number: int) -> None:
        super().__init__(access)
        self._name, self._number = name, number

    def write(self, target: Target, value: str) -> None:
        if self._name in target.name:
            raise OSError(self._number, os.strerror(self._number))
        super().write(target, value)


def test_a_managed_interrupt_refuses(patient: Patient) -> None:
    steps = patient.apply(machine=Refusing(patient.access, "irq", errno.EIO))
    assert results(steps) == ["written", "refused", "written", "written"]
    assert "managed interrupt" in steps[1].remark
    assert results(patient.undo()) == ["restored"] * 3
    assert patient.values() == ORIGINAL


def test_an_undo_that_is_refused_stays_ours(patient: Patient) -> None:
    patient.apply()
    refusing = Refusing(patient.access, "irq", errno.EPERM)
    assert sorted(results(patient.undo(refusing))) == ["refused", *["restored"] * 3]
    assert [entry.target for entry in patient.saved().entries.values()] == [
        "file:/proc/irq/38/smp_affinity_list"
    ]
    assert results(patient.undo()) == ["restored"]
    assert patient.values() == ORIGINAL


class Rounding(Machine):
    """The kernel takes fewer than it is asked for."""

    def write(self, target: Target, value: str) -> None:
        super().write(target, "3000" if "somaxconn" in target.name else value)


def test_a_value_that_the_kernel_adjusts(patient: Patient) -> None:
    steps = patient.apply(machine=Rounding(patient.access))
    assert (steps[0].result, steps[0].now) == (Result.ADJUSTED, "3000")
    assert results(patient.undo()) == ["restored"] * 4
    assert patient.values() == ORIGINAL


def test_an_earlier_boot_left_nothing(patient: Patient) -> None:
    patient.apply()
    patient.set("/proc/sys/kernel/random/boot_id", "boot-2")
    assert patient.undo() == []
    assert patient.saved() == State()
    assert patient.values() == NEW  # nothing was touched


def test_a_damaged_journal_is_set_aside(patient: Patient) -> None:
    patient.apply()
    path = patient.state / "tune-1.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:9] + b"x" + lines[1][10:]
    path.write_bytes(b"".join(lines))
    assert "line 2 is damaged" in patient.saved().damage[0]
    # What it still tells is taken back; what it no longer tells is left as it is.
    assert results(patient.undo()) == ["restored"] * 3
    assert patient.values() == ORIGINAL | {"/proc/sys/net/core/somaxconn": "4096"}
    assert (patient.state / "tune-1.damaged").exists()
    assert patient.saved() == State()


def test_a_new_run_after_a_damaged_journal_keeps_the_old_values(patient: Patient) -> None:
    patient.apply()
    path = patient.state / "tune-1.journal"
    path.write_bytes(path.read_bytes() + encode({"kind": "intent"})[:15])
    more = Plan("more", "", "", (Write("sysctl:vm.swappiness", "10", "5", "more"),))
    patient.apply(more)
    assert patient.saved().damage == ()
    patient.undo()
    assert patient.values() == ORIGINAL


# Killed between any two steps.


class Dying:
    """Kills the process before its n-th operation, whatever that is."""

    def __init__(self, left: int) -> None:
        self._left = left

    def tick(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class DyingMachine(Machine):
    def __init__(self, access: Access, dying: Dying) -> None:
        super().__init__(access)
        self._dying = dying

    def write(self, target: Target, value: str) -> None:
        self._dying.tick()
        super().write(target, value)
        self._dying.tick()


class DyingJournal(Journal):
    dying: Dying

    def intend(self, entry: Entry) -> None:
        self.dying.tick()
        super().intend(entry)
        self.dying.tick()

    def done(self, number: int, value: str) -> None:
        self.dying.tick()
        super().done(number, value)
        self.dying.tick()

    def forget(self, number: int, reason: str) -> None:
        self.dying.tick()
        super().forget(number, reason)
        self.dying.tick()


def killed(patient: Patient, at: int, *, undoing: bool) -> bool:
    """Whether a run was killed at its n-th operation, or came to its end before."""
    pid = os.fork()
    if pid == 0:
        try:
            dying = Dying(at)
            with DyingJournal(1, patient.state) as journal:
                journal.dying = dying
                machine = DyingMachine(patient.access, dying)
                list(undo(machine, journal) if undoing else apply(PLAN, machine, journal))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("at", range(24))
def test_killed_while_writing(patient: Patient, at: int) -> None:
    assert killed(patient, at, undoing=False)
    # No change without its entry in the journal.
    announced = {entry.target for entry in patient.saved().entries.values()}
    for write in PLAN.writes:
        path = write.target.removeprefix("file:")
        path = {"sysctl:net.core.somaxconn": "/proc/sys/net/core/somaxconn",
                "sysctl:vm.swappiness": "/proc/sys/vm/swappiness"}.get(path, path)  # fmt: skip
        if patient.values()[path] != OLD[path]:
            assert write.target in announced
    assert set(results(patient.undo())) <= {"restored", "never written"}
    assert patient.values() == ORIGINAL
    assert patient.saved() == State()


def test_killed_after_the_last_operation(patient: Patient) -> None:
    assert not killed(patient, 24, undoing=False)
    assert patient.values() == NEW


@pytest.mark.parametrize("at", range(16))
def test_killed_while_taking_back(patient: Patient, at: int) -> None:
    patient.apply()
    assert killed(patient, at, undoing=True)
    assert set(results(patient.undo())) <= {"restored"}
    assert patient.values() == ORIGINAL
    assert patient.saved() == State()


def test_killed_twice(patient: Patient) -> None:
    assert killed(patient, 10, undoing=False)
    assert killed(patient, 3, undoing=True)
    patient.undo()
    assert patient.values() == ORIGINAL


# A disk that is full.


@pytest.mark.networks
@pytest.mark.parametrize("room", range(4))
def test_a_full_disk(patient: Patient, lab: Lab, room: int) -> None:
    def run() -> tuple[list[str], str, dict[str, str]]:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
        patient.state.mkdir()
        syscalls.mount("tmpfs", str(patient.state), "tmpfs", 0, "size=8k,mode=700")
        # A page for the lock, a page for the journal, of which little is left.
        journal = patient.journal()
        journal.begin("boot-1", "")
        with open(journal.path, "ab") as file:
            file.write(b"\n" * (4096 - os.path.getsize(journal.path) - 40 - 250 * room))
        done, said = [], ""
        try:
            for step in apply(PLAN, patient.machine, journal):
                done.append(str(step.result))
        except OSError as error:
            said = f"{error.errno} {error.strerror}"
        # The disk is still full, and everything can be taken back all the same.
        list(undo(patient.machine, journal))
        journal.close()
        return done, said, patient.values()

    done, said, values = lab.host("a").call(run)
    assert said.startswith(f"{errno.ENOSPC} the journal cannot be written")
    assert len(done) <= room
    assert values == ORIGINAL


# For real.


@pytest.mark.networks
def test_a_host_of_the_lab(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    host.sysctl("net.ipv4.tcp_fin_timeout", 60)
    lab.wire(host, lab.host("b"), queues=2)
    plan = Plan(
        "real",
        "eth0",
        "",
        (
            Write("channels:eth0:rx", "2", "1", ""),
            Write("channels:eth0:rx", "1", "99", ""),
            Write("ring:eth0:rx", "", "512", ""),
            Write("sysctl:net.ipv4.tcp_fin_timeout", "60", "15", ""),
            Write("sysctl:net.core.netdev_budget", "300", "600", ""),
        ),
    )
    with host.enter(), Access() as access, Journal(2, tmp_path) as journal:
        steps = list(apply(plan, Machine(access), journal))
        assert results(steps) == ["written", "refused", "refused", "written", "refused"]
        assert "exceeds maximum" in steps[1].remark
        assert host.sysctl("net.ipv4.tcp_fin_timeout") == "15"
        assert results(list(undo(Machine(access), journal))) == ["restored"] * 2
    assert host.sysctl("net.ipv4.tcp_fin_timeout") == "60"


@pytest.mark.networks
def test_the_interface_is_gone_before_undo(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"), queues=2)
    plan = Plan("real", "eth0", "", (Write("channels:eth0:rx", "2", "1", ""),))
    with host.enter(), Access() as access, Journal(2, tmp_path) as journal:
        assert results(list(apply(plan, Machine(access), journal))) == ["written"]
        wire.remove()
        assert results(list(undo(Machine(access), journal))) == ["gone"]
        assert journal.state() == State()
