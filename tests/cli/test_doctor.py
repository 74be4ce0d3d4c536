"""`millrace doctor`, as it is typed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from millrace import cli
from millrace.host.checks import CHECKS
from millrace.lab import Host, Lab

COLUMNS = {
    "check",
    "layer",
    "scope",
    "verdict",
    "evidence",
    "why",
    "remedy",
    "shell",
    "risk",
}


def millrace(host: Host, *arguments: str) -> tuple[int, str, str]:
    """Run the command on a host of the lab, with a /sys of its own."""
    program = [sys.executable, "-m", "millrace", *arguments]
    result = host.run(program, check=False, timeout=120)
    return result.returncode, result.stdout, result.stderr


@pytest.mark.networks
def test_a_healthy_host(lab: Lab) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"))
    status, out, err = millrace(host, "doctor")
    assert (status, err) == (0, "")
    assert "BAD" not in out
    assert "WARN" not in out
    assert "Loss on the way in" in out
    assert "eth0  veth" in out
    assert f"{len(CHECKS)} checks: 0 bad, 0 warn" in out


@pytest.mark.networks
def test_a_sick_host(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"))
    wire.b.set_down()
    rows_file = tmp_path / "rows.json"
    status, out, _ = millrace(host, "doctor", "eth0", "--json", str(rows_file))
    assert status == 3
    assert "BAD   link-down (device eth0)" in out
    rows = json.loads(rows_file.read_text())
    assert all(set(row) == COLUMNS for row in rows)
    assert rows[0]["verdict"] == "bad"
    assert {row["check"] for row in rows} == set(CHECKS)


@pytest.mark.networks
def test_remedies_are_lines_to_paste(lab: Lab) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"))
    host.sysctl("net.ipv4.tcp_sack", 0)
    _, out, _ = millrace(host, "doctor", "--check", "tcp-features", "--watch", "0")
    assert "  $ sysctl -w net.ipv4.tcp_sack=1" in out
    assert "or: millrace tune --fix tcp-features --apply" in out
    (line,) = [line for line in out.splitlines() if "$ sysctl" in line]
    host.run(["sh", "-ec", line.partition("$ ")[2]])
    assert host.sysctl("net.ipv4.tcp_sack") == "1"


@pytest.mark.networks
def test_json_on_standard_output_is_alone(lab: Lab) -> None:
    status, out, err = millrace(lab.host("a"), "doctor", "--watch", "10ms", "--json", "-")
    assert status == 0
    assert {row["check"] for row in json.loads(out)} == set(CHECKS)
    assert "checks:" in err


@pytest.mark.networks
def test_a_bundle_from_another_machine(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"))
    wire.b.set_down()
    bundle, page, picture = (str(tmp_path / name) for name in ("b.json", "p.html", "p.svg"))
    assert millrace(host, "doctor", "--save", bundle)[0] == 3
    status, out, _ = millrace(lab.host("far"), "doctor", "--bundle", bundle, "--all",
                              "--html", page, "--svg", picture)  # fmt: skip
    assert status == 3
    assert "link-down" in out
    assert "eth0 (!!)  veth, MTU 1500" in out
    assert "<!DOCTYPE html>" in Path(page).read_text()
    assert Path(picture).read_text().startswith("<svg")


@pytest.mark.networks
def test_without_root_it_says_what_root_would_add(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"))

    def look() -> tuple[int, str]:
        import contextlib
        import io

        # Import all there is to import, which this user might not be able to read.
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(["doctor", "--watch", "0", "--all"])
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                status = cli.main(["doctor", "--watch", "0", "--all"])
        finally:
            os.seteuid(0)
        return status, out.getvalue()

    status, out = host.call(look)
    assert status == 0
    assert "as user 65534" in out
    assert "not root. Missing" in out
    assert "CAP_NET_ADMIN: settings of interfaces" in " ".join(out.split())
    assert "OK    link-down (device eth0)" in out


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--explain", "softnet-drops"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("softnet-drops (layer softnet, about host)")
    assert "column 1 of softnet_stat" in out
    assert "Source: Documentation/admin-guide/sysctl/net.rst" in out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CHECKS)


def test_a_small_terminal_shows_whole_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["doctor", "--watch", "0"]) in (0, 3)
    prose = [line for line in capsys.readouterr().out.splitlines() if line.startswith("      Why")]
    assert all(len(line) <= 100 for line in prose)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eth99"], "millrace doctor: there is no interface 'eth99'; there is lo"),
        (["--goal", "speed"], "no goal 'speed'; there is none, latency, throughput, overload"),
        (["--check", "softnet"], "no check 'softnet'; did you mean"),
        (["--explain", "x"], "there is no check 'x'"),
        (["--watch", "soon"], "--watch is a time up to an hour"),
        (["--bundle", "/nowhere"], "/nowhere: No such file or directory"),
        (["--bundle", "/nowhere", "--watch", "1s"], "ask for one"),
        (["--json", "/nowhere/x"], "/nowhere/x: No such file or directory"),
        (["--html", "/nowhere/x"], "/nowhere/x: No such file or directory"),
    ],
)
def test_wrong_wishes(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", *arguments]) == cli.EXIT_FAILURE
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_hostile_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bundle.json"
    for text in ("", "{}", "[" * 50_000, '{"format": "millrace-host", "version": 1}', "\x00\xff"):
        path.write_text(text)
        assert cli.main(["doctor", "--bundle", str(path)]) == cli.EXIT_FAILURE
        assert str(path) in capsys.readouterr().err


def test_a_bundle_with_escapes_prints_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from millrace.host import Observer

    path = tmp_path / "bundle.json"
    with Observer() as observer:
        observer.snapshot().save(path)
    text = path.read_text().replace('"name":"lo"', '"name":"lo\\u001b[2J"')
    path.write_text(text)
    cli.main(["doctor", "--bundle", str(path), "--all"])
    streams = capsys.readouterr()
    assert "\x1b" not in streams.out + streams.err


@pytest.mark.networks
def test_a_full_disk(lab: Lab) -> None:
    if not Path("/dev/full").exists() or shutil.which("sh") is None:
        pytest.skip("needs /dev/full")
    status, _, err = millrace(lab.host("a"), "doctor", "--watch", "0", "--json", "/dev/full")
    assert status == 1
    assert "No space left on device" in err
    assert err.count("\n") == 1
