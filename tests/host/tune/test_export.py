"""A plan in other forms does the same as the plan."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from millrace.host.checks import Goal
from millrace.host.tune import Plan, make_plan
from millrace.host.tune.export import shell, systemd, tuned, write
from millrace.host.tune.plan import Advice, Write
from millrace.lab import Lab

PLAN = Plan(
    "eth0 for 100% $HOME\nand more",
    "eth0.7",
    "latency",
    (
        Write("sysctl:net.ipv4.tcp_rmem", "4096 131072 6291456", "4096 131072 16777216", "a; b"),
        Write("sysctl:net.ipv4.tcp_fin_timeout", "60", "15", "it's\nshort"),
        Write("file:/sys/class/net/eth0/queues/rx-0/rps_cpus", "0", "3", "spread"),
        Write("offload:eth0:tso", "tx-tcp-segmentation=off", "tx-tcp-segmentation=on", "more"),
        Write("ring:eth0:rx", "", "512", "its old value is unknown"),
        Write("service:irqbalance", "active", "inactive", "it would move them"),
    ),
    (Advice("kernel parameters: tsc=reliable\nrm -rf /", "boot"),),
)


def test_a_script_is_one_for_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "tune.sh"
    script.write_text(shell(PLAN))
    subprocess.run(["sh", "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    assert lines[1] == "# eth0 for 100% $HOME and more"
    assert "# By hand: kernel parameters: tsc=reliable rm -rf /" in lines
    assert "    sysctl -w 'net.ipv4.tcp_rmem=4096 131072 16777216'  # a; b" in lines
    undo = lines[lines.index("undo() {") :]
    assert undo[1] == "    systemctl start irqbalance"
    assert not any("ring" in line or "-G" in line for line in undo)


def test_an_empty_plan_is_a_script_too(tmp_path: Path) -> None:
    script = tmp_path / "tune.sh"
    write(Plan("nothing", "", "", ()), "shell", str(script))
    subprocess.run([str(script), "apply"], check=True)
    subprocess.run([str(script), "undo"], check=True)
    assert subprocess.run([str(script), "x"], check=False, capture_output=True).returncode == 2


@pytest.mark.networks
def test_a_script_does_what_the_plan_says(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"), offloads={"tso": False})
    host.sysctl("net.ipv4.tcp_fin_timeout", 60)
    plan = Plan(
        "real",
        "eth0",
        "",
        (
            Write("sysctl:net.ipv4.tcp_fin_timeout", "60", "15", "short"),
            Write("offload:eth0:tso", "tx-tcp-segmentation=off", "tx-tcp-segmentation=on", ""),
            Write("file:/sys/class/net/eth0/queues/rx-0/rps_cpus", "0", "1", "first"),
        ),
    )
    (script,) = write(plan, "shell", str(tmp_path / "tune.sh"))
    mask = ["cat", "/sys/class/net/eth0/queues/rx-0/rps_cpus"]
    host.run([script])
    assert host.sysctl("net.ipv4.tcp_fin_timeout") == "15"
    assert wire.a.offloads()["tx-tcp-segmentation"] is True
    assert int(host.run(mask).stdout, 16) == 1
    host.run([script, "undo"])
    assert host.sysctl("net.ipv4.tcp_fin_timeout") == "60"
    assert wire.a.offloads()["tx-tcp-segmentation"] is False
    assert int(host.run(mask).stdout, 16) == 0


def test_a_unit(tmp_path: Path) -> None:
    text = systemd(PLAN)
    assert "Description=Millrace: eth0 for 100%% $HOME and more" in text
    assert "BindsTo=sys-subsystem-net-devices-eth0.7.device" in text
    starts = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    stops = [line for line in text.splitlines() if line.startswith("ExecStop=")]
    assert len(starts) == 6
    assert len(stops) == 5
    assert starts[0] == (
        """ExecStart=-/bin/sh -c "sysctl -w 'net.ipv4.tcp_rmem=4096 131072 16777216'\""""
    )
    assert stops[0] == 'ExecStop=-/bin/sh -c "systemctl start irqbalance"'
    verify = shutil.which("systemd-analyze")
    if verify is None:
        return
    unit = tmp_path / "millrace-test.service"
    unit.write_text(text)
    said = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True)
    assert "millrace-test.service:" not in said.stderr, said.stderr


def test_a_profile(tmp_path: Path) -> None:
    files = write(PLAN, "tuned", str(tmp_path / "millrace"))
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read(files[0])
    assert parser["main"]["summary"] == "Millrace: eth0 for 100% $HOME and more"
    assert parser["sysctl"]["net.ipv4.tcp_fin_timeout"] == "15"
    assert parser["sysfs"]["/sys/class/net/eth0/queues/rx-0/rps_cpus"] == "3"
    assert parser["service"]["service.irqbalance"] == "stop"
    assert parser["script"]["script"] == "${i:PROFILE_DIR}/script.sh"
    subprocess.run(["sh", "-n", files[1]], check=True)
    script = Path(files[1]).read_text()
    assert "ethtool -K eth0 tx-tcp-segmentation on" in script
    conf, _ = tuned(Plan("small", "", "", PLAN.writes[:1]))
    assert "[script]" not in conf


def test_forms_of_a_whole_plan(server: Any, tmp_path: Path) -> None:
    plan = make_plan(server.after, "eth0", Goal.LATENCY)
    for form in ("shell", "systemd", "tuned"):
        for file in write(plan, form, str(tmp_path / form)):
            assert Path(file).stat().st_size > 100
    with pytest.raises(ValueError, match="no form 'xml'; there is shell, systemd and tuned"):
        write(plan, "xml", str(tmp_path / "x"))
