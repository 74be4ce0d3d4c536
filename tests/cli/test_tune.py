"""`millrace tune`, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace import cli
from millrace.host.access import namespace_cookie
from millrace.host.tune import Journal
from millrace.lab import Host, Lab

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def host(lab: Lab) -> Host:
    host = lab.host("a")
    lab.wire(host, lab.host("b"), offloads={"tso": False})
    host.sysctl("net.ipv4.tcp_slow_start_after_idle", 1)
    return host


@pytest.fixture
def tune(host: Host, tmp_path: Path) -> Run:
    """Runs the command on the host, with a journal of its own."""

    def run(*arguments: str) -> tuple[int, str, str]:
        program = [sys.executable, "-m", "millrace", "tune", *arguments]
        env = {"MILLRACE_STATE": str(tmp_path / "state")}
        result = host.run(program, check=False, timeout=120, env=env)
        return result.returncode, result.stdout, result.stderr

    return run


def idle(host: Host) -> str:
    return host.sysctl("net.ipv4.tcp_slow_start_after_idle")


@pytest.mark.networks
def test_a_plan_writes_nothing(host: Host, tune: Run, tmp_path: Path) -> None:
    rows = tmp_path / "plan.json"
    status, out, _ = tune("eth0", "--goal", "throughput", "--json", str(rows))
    assert status == 0
    assert "net.ipv4.tcp_slow_start_after_idle: 1 -> 0" in out
    assert "$ sysctl -w net.ipv4.tcp_slow_start_after_idle=0" in out
    assert "eth0 offload tso: off -> on" in out
    assert "By hand: sysctl -w vm.swappiness=10  (the whole machine's" in out
    assert idle(host) == "1"
    found = {row["target"]: row for row in json.loads(rows.read_text())}
    assert found["eth0 offload tso"]["new"] == "on"
    assert set(found["eth0 offload tso"]) == {"target", "old", "new", "why", "shell", "risk"}
    assert not (tmp_path / "state").exists()


@pytest.mark.networks
def test_apply_status_undo(host: Host, tune: Run) -> None:
    assert tune("--status")[:2] == (0, "Nothing is ours here.\n")
    status, out, err = tune("eth0", "--goal", "throughput", "--apply")
    assert status == 0
    assert "written  net.ipv4.tcp_slow_start_after_idle, now 0" in out
    assert "millrace tune --undo takes it back" in err
    assert idle(host) == "0"
    status, out, _ = tune("--status")
    assert status == 0
    assert "net.ipv4.tcp_slow_start_after_idle" in out
    assert "changed" not in out
    status, out, _ = tune("--undo")
    assert status == 0
    assert "restored  net.ipv4.tcp_slow_start_after_idle, now 1" in out
    assert idle(host) == "1"
    assert tune("--undo")[:2] == (0, "Nothing is ours here.\n")


@pytest.mark.networks
def test_what_somebody_else_changed_is_named(host: Host, tune: Run) -> None:
    tune("eth0", "--goal", "throughput", "--apply")
    host.sysctl("net.ipv4.tcp_notsent_lowat", 777)
    status, out, _ = tune("--undo")
    assert status == 1
    assert "changed by others  net.ipv4.tcp_notsent_lowat, now 777  (it was 131072" in out
    assert host.sysctl("net.ipv4.tcp_notsent_lowat") == "777"
    assert idle(host) == "1"


@pytest.mark.networks
def test_fix_mends_what_a_check_finds(host: Host, tune: Run) -> None:
    host.sysctl("net.ipv4.tcp_sack", 0)
    status, out, _ = tune("--fix", "tcp-features")
    assert status == 0
    assert "mend tcp-features" in out
    assert host.sysctl("net.ipv4.tcp_sack") == "0"
    assert tune("--fix", "tcp-features", "--apply")[0] == 0
    assert host.sysctl("net.ipv4.tcp_sack") == "1"
    assert "Nothing to write" in tune("--fix", "tcp-features")[1]
    tune("--undo")
    assert host.sysctl("net.ipv4.tcp_sack") == "0"


@pytest.mark.networks
def test_a_second_tune_is_told(host: Host, tune: Run, tmp_path: Path) -> None:
    with Journal(1, tmp_path / "state"):
        status, _, err = tune("eth0", "--goal", "throughput", "--apply")
    assert status == 1
    assert "another millrace tune is at work (process" in err
    assert idle(host) == "1"


@pytest.mark.networks
def test_a_cut_journal_is_told(host: Host, tune: Run, tmp_path: Path) -> None:
    tune("eth0", "--goal", "throughput", "--apply")
    with host.enter():
        path = tmp_path / "state" / f"tune-{namespace_cookie()}.journal"
    data = path.read_bytes()
    path.write_bytes(data[:-15])
    status, out, err = tune("--undo")
    assert status == 1
    assert "is cut" in err
    assert "restored" in out
    assert idle(host) == "1"
    assert tune("--undo") == (0, "Nothing is ours here.\n", "")


@pytest.mark.networks
def test_prove(host: Host, tune: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    # It prints another figure once the setting is written: a difference that must be seen.
    command = "echo rate: $((100 - 50 * $(cat /proc/sys/net/ipv4/tcp_slow_start_after_idle)))"
    wish = ["eth0", "--goal", "throughput", "--prove", command, "--metric", r"rate: (\d+)"]
    status, out, _ = tune(*wish, "--rounds", "6", "--json", str(rows))
    assert status == 0
    found = {row["figure"]: row for row in json.loads(rows.read_text())}
    assert (found["printed"]["before"], found["printed"]["after"]) == (50, 100)
    assert found["printed"]["judgement"] == "more by 100.0%"
    assert "restored" in out
    assert idle(host) == "1"
    assert tune(*wish, "--rounds", "2", "--apply")[0] == 0
    assert idle(host) == "0"
    tune("--undo")


@pytest.mark.networks
def test_prove_takes_back_what_a_failing_command_leaves(host: Host, tune: Run) -> None:
    command = "exit $((1 - $(cat /proc/sys/net/ipv4/tcp_slow_start_after_idle)))"
    status, _, err = tune("eth0", "--goal", "throughput", "--prove", command)
    assert status == 1
    assert "ended with status 1" in err
    assert idle(host) == "1"


@pytest.mark.networks
def test_export(host: Host, tune: Run, tmp_path: Path) -> None:
    script, folder = tmp_path / "tune.sh", tmp_path / "profile"
    status, _, err = tune(
        "eth0", "--goal", "throughput", "--export", f"shell={script}", "--export", f"tuned={folder}"
    )
    assert status == 0
    assert f"wrote {script}" in err
    assert (folder / "tuned.conf").exists()
    host.run([str(script)])
    assert idle(host) == "0"
    host.run([str(script), "undo"])
    assert idle(host) == "1"


@pytest.mark.networks
def test_a_plan_for_another_machine(lab: Lab, host: Host, tune: Run, tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle.json")
    host.run([sys.executable, "-m", "millrace", "doctor", "--watch", "0", "--save", bundle])
    host.sysctl("net.ipv4.tcp_slow_start_after_idle", 0)
    status, out, _ = tune("eth0", "--goal", "throughput", "--bundle", bundle)
    assert status == 0
    assert "net.ipv4.tcp_slow_start_after_idle: 1 -> 0" in out
    status, _, err = tune("eth0", "--goal", "throughput", "--bundle", bundle, "--apply")
    assert status == 1
    assert "cannot be written here" in err


@pytest.mark.networks
def test_killed_between_two_writes(host: Host, tune: Run, tmp_path: Path) -> None:
    """The real command, ended by SIGKILL as soon as its first write is on disk."""
    program = [sys.executable, "-m", "millrace", "tune", "eth0", "--goal", "throughput", "--apply"]
    env = {"MILLRACE_STATE": str(tmp_path / "state")}
    process = host.popen(program, env=env, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "written" in line:
            process.kill()
            break
    process.communicate()
    status, _, _ = tune("--undo")
    assert status == 0
    assert idle(host) == "1"
    assert host.sysctl("net.ipv4.tcp_notsent_lowat") == "4294967295"
    assert tune("--status")[:2] == (0, "Nothing is ours here.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an interface and a --goal"),
        (["eth0"], "name an interface and a --goal"),
        (["lo", "--goal", "speed"], "no goal 'speed'"),
        (["lo", "--goal", "none"], "a plan needs a goal"),
        (["nosuch0", "--goal", "latency"], "no interface 'nosuch0'"),
        (["lo", "--goal", "latency", "--cpus", "9999"], "--cpus '9999' is no list"),
        (["lo", "--goal", "latency", "--place", "moon"], "no --place 'moon'"),
        (["lo", "--goal", "latency", "--owner", "me"], "kernel or millrace, not 'me'"),
        (["--fix", "nosuch"], "no check 'nosuch'"),
        (["--undo", "--status"], "two things"),
        (["--undo", "--apply"], "go alone"),
        (["lo", "--goal", "latency", "--plan", "--apply"], "--plan writes nothing"),
        (["lo", "--goal", "latency", "--export", "shell"], "is no FORM=FILE"),
        (["lo", "--goal", "latency", "--export", "xml=/tmp/x"], "no form 'xml'"),
    ],
)
def test_wrong_wishes(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune", *arguments]) == cli.EXIT_FAILURE
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
