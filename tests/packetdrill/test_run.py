"""The runner's own logic, with a program that plays packetdrill."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest


def executable(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Says and does what its script says.
FAKE = """
for argument; do last=$argument; done
case $(cat "$last") in
  *well*) exit 0 ;;
  *badly*) echo "$last:7: error handling packet: timing error"; exit 1 ;;
  *setup*) echo "$last: error executing init command: non-zero status 2"; exit 1 ;;
  *dies*) kill -ABRT $$ ;;
  *hangs*) sleep 600 ;;
  *shows*) printf '%s\\n' "$@"; exit 1 ;;
esac
"""


@pytest.fixture
def runner(run: types.ModuleType, tmp_path: Path) -> object:
    fake = executable(tmp_path / "packetdrill", FAKE)
    return run.Runner(fake, tmp_path / "plugin.so", timeout=1.0, sandbox=False)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("goes well", "passed", ""),
        ("goes badly", "failed", "x.pkt:7: error handling packet: timing error"),
        ("wrong setup", "environment error", "x.pkt: error executing init command"),
        ("dies", "failed", "died of SIGABRT"),
        ("hangs", "timeout", ""),
        ("0 socket(..., SOCK_DGRAM, 0) = 3 // well", "unsupported", "datagrams"),
        ("goes well // without SOCK_DGRAM", "passed", ""),
    ],
)
def test_status(
    run: types.ModuleType,
    runner: object,
    tmp_path: Path,
    text: str,
    status: str,
    reason: str,
) -> None:
    path = script(tmp_path, "x.pkt", text)
    result = runner.run(path, run.FAMILIES["ipv4"], "x.pkt")  # type: ignore[attr-defined]
    assert result.status == status
    assert result.reason.startswith(reason)


def test_unsupported_may_be_run_all_the_same(
    run: types.ModuleType, runner: object, tmp_path: Path
) -> None:
    runner.run_unsupported = True  # type: ignore[attr-defined]
    path = script(tmp_path, "x.pkt", "SOCK_DGRAM goes well")
    result = runner.run(path, run.FAMILIES["ipv4"], "x.pkt")  # type: ignore[attr-defined]
    assert result.status == run.PASSED


def test_a_sandbox_that_cannot_be_made_is_no_failure_of_the_stack(run: types.ModuleType) -> None:
    assert run.classify(run.SANDBOX_FAILED, "ip: not permitted\n") == (
        "environment error",
        "ip: not permitted",
    )


def test_a_missing_binary_is_named(run: types.ModuleType, tmp_path: Path) -> None:
    runner = run.Runner(tmp_path / "none", tmp_path / "plugin.so", sandbox=False)
    path = script(tmp_path, "x.pkt", "anything")
    result = runner.run(path, run.FAMILIES["ipv4"], "x.pkt")
    assert result.status == run.ENVIRONMENT
    assert "none" in result.reason


def test_unsupported_is_never_counted_as_passed(run: types.ModuleType) -> None:
    results = [
        run.Result("a", "ipv4", run.PASSED, "", 0.0),
        run.Result("b", "ipv4", run.UNSUPPORTED, "", 0.0),
        run.Result("c", "ipv4", run.UNSUPPORTED, "", 0.0),
        run.Result("a", "ipv6", run.FAILED, "", 0.0),
    ]
    assert run.summary(results) == [
        "ipv4: 1 passed, 0 failed, 2 unsupported, 0 timeout, 0 environment error; 1 of 3 passed",
        "ipv6: 0 passed, 1 failed, 0 unsupported, 0 timeout, 0 environment error; 0 of 1 passed",
    ]


def test_comments_decide_nothing(run: types.ModuleType) -> None:
    text = '/* MSG_ZEROCOPY\n */ write(3, "// kept", 7) // SO_TIMESTAMPING\n`a // b`'
    stripped = run.without_comments(text)
    assert "ZEROCOPY" not in stripped
    assert "TIMESTAMPING" not in stripped
    assert '"// kept"' in stripped
    assert "`a // b`" in stripped


def test_every_feature_has_a_reason(run: types.ModuleType) -> None:
    features = run.load_features()
    assert features
    assert all(feature.name and feature.reason for feature in features)


@pytest.mark.parametrize(
    ("name", "text", "families"),
    [
        ("a.pkt", "", ["ipv4", "ipv6", "ipv4-mapped-ipv6"]),
        ("a-v4.pkt", "", ["ipv4", "ipv4-mapped-ipv6"]),
        ("a-v6.pkt", "", ["ipv6"]),
        ("a.pkt", "--ip_version=ipv6\n", ["ipv6"]),
        ("a.pkt", "--local_ip=192.168.0.7\n", ["ipv4", "ipv6", "ipv4-mapped-ipv6"]),
        ("a.pkt", "// --ip_version=ipv6\n", ["ipv4", "ipv6", "ipv4-mapped-ipv6"]),
    ],
)
def test_families(run: types.ModuleType, name: str, text: str, families: list[str]) -> None:
    found = [
        family.name for family in run.FAMILIES.values() if run.applies(Path(name), text, family)
    ]
    assert found == families


def test_a_scripts_own_addresses_reach_the_plugin(
    run: types.ModuleType, runner: object, tmp_path: Path
) -> None:
    path = script(tmp_path, "x.pkt", "--local_ip=192.168.0.7\n--remote_ip=10.0.0.9\nshows")
    result = runner.run(path, run.FAMILIES["ipv4"], "x.pkt")  # type: ignore[attr-defined]
    flags = next(line for line in result.output.splitlines() if line.startswith("--so_flags="))
    assert "--local_ip=192.168.0.1" not in result.output
    wanted = "--so_flags=local=192.168.0.1,local=192.168.0.7,remote=10.0.0.9,mtu=1500,proc="
    assert flags.startswith(wanted)
    assert "ip addr add 192.168.0.7/16 dev tun0" in run.sandbox_script(
        run.FAMILIES["ipv4"], path.read_text()
    )


def test_addresses_of_another_family_give_way(
    run: types.ModuleType, runner: object, tmp_path: Path
) -> None:
    path = script(tmp_path, "x.pkt", "--local_ip=192.168.0.7\n--remote_ip=10.0.0.9\nshows")
    result = runner.run(path, run.FAMILIES["ipv6"], "x.pkt")  # type: ignore[attr-defined]
    assert "--local_ip=fd3d:0a0b:17d6::1" in result.output
    assert "--remote_ip=fd3d:fa7b:d17d::1" in result.output
    assert "192.168.0.7" not in result.output
    assert not result.translated


def test_a_script_of_ipv6_alone_gets_what_packetdrill_takes(
    run: types.ModuleType, tmp_path: Path
) -> None:
    family = run.FAMILIES["ipv6"]
    assert run.variant(Path("a.pkt"), "", family).mtu == 1520
    assert run.variant(Path("a-v6.pkt"), "", family).mtu == 1500
    text = "--ip_version=ipv6\n`ip route change 2001:db8::1 dev tun0 mtu lock 1700`"
    alone = run.variant(Path("a.pkt"), text, family)
    assert (alone.name, alone.mtu, alone.remote) == ("ipv6", 1700, "2001:db8::1")
    assert run.variant(Path("a-v6.pkt"), "", run.FAMILIES["ipv4"]).mtu == 1500


def test_segments_of_large_packets_reach_the_plugin(
    run: types.ModuleType, runner: object, tmp_path: Path
) -> None:
    path = script(tmp_path, "x.pkt", "--mss=1000\nshows")
    result = runner.run(path, run.FAMILIES["ipv4"], "x.pkt")  # type: ignore[attr-defined]
    assert ",mss=1000" in result.output


def test_cookies_and_codes_are_translated_and_that_is_told(
    run: types.ModuleType, runner: object, tmp_path: Path
) -> None:
    script(tmp_path, "setup.sh", "echo 01020304-05060708-090a0b0c-0d0e0f10")
    key = bytes.fromhex("0403020108070605 0c0b0a09 100f0e0d".replace(" ", ""))
    cookie = run.fast_open_cookies.cookie
    ours = cookie(key, "10.0.0.9", "192.168.0.1")
    theirs = cookie(key, "fd3d:fa7b:d17d::1", "fd3d:0a0b:17d6::1")
    text = (
        "--remote_ip=10.0.0.9\n`./setup.sh`\n"
        f"FO {ours} FOEXP {ours} FO aaaaaaaaaaaaaaaa\nicmp unreachable host_unreachable [0:1(1)]\n"
    )
    path = script(tmp_path, "x.pkt", text)
    translated = run.translated(path, text, run.FAMILIES["ipv6"])
    assert f"FO {theirs} FOEXP {theirs} FO aaaaaaaaaaaaaaaa" in translated
    assert "icmp unreachable address_unreachable [0:1(1)]" in translated
    assert run.translated(path, text, run.FAMILIES["ipv4"]) == text
    path.write_text(text + "goes well")
    result = runner.run(path, run.FAMILIES["ipv6"], "x.pkt")  # type: ignore[attr-defined]
    assert (result.status, result.translated) == ("passed", True)
    assert run.summary([result])[0].endswith("1 of 1 passed, 1 of them translated")


def test_tools_that_ask_the_kernel_reach_the_plugin(run: types.ModuleType, tmp_path: Path) -> None:
    run.furnish(tmp_path)
    tool = str(tmp_path / "bin" / "ip")
    flushed = tmp_path / "proc" / "tcp_metrics_flushed"
    assert run.subprocess.run([tool, "-V"], check=False, capture_output=True).returncode == 0
    assert not flushed.exists()
    assert run.subprocess.run([tool, "tcp_metrics", "flush", "all"], check=False).returncode == 0
    assert flushed.exists()


def test_scripts_are_found_by_name(run: types.ModuleType, tmp_path: Path) -> None:
    for name in ("one/a.pkt", "two/a.pkt", "two/b.pkt", "two/c.txt"):
        script(tmp_path, name, "")
    names = [name for _, name in run.find_scripts(tmp_path, None)]
    assert names == ["one/a.pkt", "two/a.pkt", "two/b.pkt"]
    assert [name for _, name in run.find_scripts(tmp_path, "two/*")] == ["two/a.pkt", "two/b.pkt"]
    assert [name for _, name in run.find_scripts(tmp_path, "a.pkt")] == ["one/a.pkt", "two/a.pkt"]


def test_the_program_writes_rows_and_tells_success(
    run: types.ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "scripts"
    script(folder, "good.pkt", "goes well")
    fake = executable(tmp_path / "packetdrill", FAKE)
    plugin = tmp_path / "plugin.so"
    plugin.write_text("")
    rows = tmp_path / "rows.json"
    whole = run.Runner
    monkeypatch.setattr(run, "Runner", lambda *a, **k: whole(*a, **k, sandbox=False))
    arguments = ["--packetdrill", str(fake), "--scripts", str(folder), "--plugin", str(plugin)]
    assert run.main([*arguments, "--json", str(rows)]) == 0
    assert [row["status"] for row in json.loads(rows.read_text())] == ["passed"]
    assert "1 of 1 passed" in capsys.readouterr().out
    script(folder, "bad.pkt", "goes badly")
    assert run.main(arguments) == 1
    assert run.main([*arguments, "--only", "none*"]) == 2
