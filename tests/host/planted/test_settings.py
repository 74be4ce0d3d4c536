"""Settings: faults planted for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from millrace.lab import Lab, Wire
from planted.clinic import Clinic

pytestmark = pytest.mark.networks


@pytest.mark.parametrize(
    ("check", "key", "value"),
    [
        ("tcp-features", "net.ipv4.tcp_sack", "0"),
        ("tcp-features", "net.ipv4.tcp_window_scaling", "0"),
        ("abort-on-overflow", "net.ipv4.tcp_abort_on_overflow", "1"),
        ("local-ports", "net.ipv4.ip_local_port_range", "40000 40999"),
        ("tcp-buffers", "net.ipv4.tcp_rmem", "4096 16384 65536"),
        ("tcp-buffers", "net.ipv4.tcp_wmem", "4096 16384 65536"),
    ],
)
def test_a_setting(clinic: Clinic, check: str, key: str, value: str) -> None:
    clinic.well(check)
    clinic.host.sysctl(key, value)
    clinic.cured_by_tune(check)
    assert clinic.host.sysctl(key).split() == value.split()


def test_offloads_are_off(wire: Wire, clinic: Clinic) -> None:
    wire.a.set_offloads({"tso": False, "gso": False})
    clinic.cured_by_tune("tx-offloads")


@pytest.mark.parametrize(
    ("queues", "mask", "check"), [(1, "2", "rps-one-cpu"), (2, "3", "rps-redundant")]
)
def test_steering(lab: Lab, tmp_path: Path, queues: int, mask: str, check: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    wire = lab.wire(lab.host("patient"), lab.host("peer"), queues=queues)
    clinic = Clinic(wire.a.host, tmp_path)
    for queue in range(queues):
        path = f"/sys/class/net/eth0/queues/rx-{queue}/rps_cpus"
        wire.a.host.run(["sh", "-c", f"echo {mask} > {path}"])
    clinic.cured_by_tune(check)


def test_napi_threads_run_about(lab: Lab, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    wire = lab.wire(lab.host("patient"), lab.host("peer"), offloads={"gro": True})
    clinic = Clinic(wire.a.host, tmp_path)
    wire.a.host.run(["sh", "-c", "echo 1 > /sys/class/net/eth0/threaded"])
    (found,) = clinic.sick("threaded-napi")
    # By hand, with the line that the finding gives.
    subprocess.run(["sh", "-ec", found.shell], check=True, stdout=subprocess.DEVNULL)
    clinic.well("threaded-napi")
