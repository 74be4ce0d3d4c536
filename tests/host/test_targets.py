"""Only what is listed can be written, whatever a name holds; values mean what the kernel means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.host import targets
from millrace.host.access import Access
from millrace.lab import Lab

GOOD = [
    "sysctl:net.core.somaxconn",
    "sysctl:net/ipv4/conf/mill.7/rp_filter",
    "sysctl:kernel.numa_balancing",
    "sysctl:vm.swappiness",
    "file:/sys/class/net/eth0/queues/rx-0/rps_cpus",
    "file:/sys/class/net/eth0/threaded",
    "file:/proc/irq/38/smp_affinity_list",
    "file:/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor",
    "file:/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    "ring:eth0:rx",
    "channels:eth0:combined",
    "coalesce:eth0:adaptive-rx",
    "offload:eth0:tso",
    "rss:eth0",
    "service:irqbalance",
]

BAD = [
    "",
    "sysctl:",
    "sysctl:kernel.core_pattern",
    "sysctl:kernel/../kernel/core_pattern",
    "sysctl:net/../kernel/core_pattern",
    "sysctl:net.ipv4.conf..rp_filter",
    "sysctl:vm/../../../etc/passwd",
    "sysctl:net.core.x y",
    "file:/etc/passwd",
    "file:/sys/class/net/../../kernel/x",
    "file:/sys/class/net/a/../../queues/rx-0/rps_cpus",
    "file:/sys/class/net/eth0/uevent",
    "file:/proc/irq/38/../../sysrq-trigger",
    "file:/proc/sysrq-trigger",
    "ring:eth0:rx-mini",
    "ring:eth0/x:rx",
    "offload:eth0:a b",
    "offload:eth0:;reboot",
    "rss:a/b",
    "service:sshd",
    "unknown:eth0",
]


@pytest.mark.parametrize("name", GOOD)
def test_names_are_read_back(name: str) -> None:
    target = targets.parse(name)
    assert target.name == name
    assert target.title
    assert targets.is_known(name)


@pytest.mark.parametrize("name", BAD)
def test_nothing_else_can_be_written(name: str) -> None:
    with pytest.raises(ValueError, match=r"nothing that Millrace writes|no name of a sysctl"):
        targets.parse(name)
    assert not targets.is_known(name)


@given(st.text(max_size=60))
def test_any_name_is_known_or_refused(name: str) -> None:
    for prefix in ("", "file:", "sysctl:", "offload:", "ring:"):
        if targets.is_known(prefix + name):
            target = targets.parse(prefix + name)
            assert target.name == prefix + name
            assert ".." not in target.file().split("/")


def test_two_ways_to_write_one_value() -> None:
    mask = targets.parse("file:/sys/class/net/eth0/queues/rx-0/rps_cpus")
    assert mask.same("00000000,00000003", "3")
    assert not mask.same("3", "1")
    assert not mask.same("nonsense", "3")
    cpus = targets.parse("file:/proc/irq/38/smp_affinity_list")
    assert cpus.same("0,1,2", "0-2")
    words = targets.parse("sysctl:net.ipv4.tcp_rmem")
    assert words.same("4096\t131072\t6291456", "4096 131072 6291456")
    table = targets.parse("rss:eth0")
    assert table.same("0 1 0 1", "0 1 0 1")
    assert table.same("0*2 1", "0 0 1")
    offload = targets.parse("offload:eth0:tso")
    assert offload.same("b=on a=off", "a=off b=on")
    assert (offload.show("a=on b=on"), offload.show("a=on b=off")) == ("on", "a=on b=off")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("sysctl:net.ipv4.tcp_rmem", "1 2 3", "sysctl -w 'net.ipv4.tcp_rmem=1 2 3'"),
        ("file:/proc/irq/38/smp_affinity_list", "0-2", "echo 0-2 > /proc/irq/38/smp_affinity_list"),
        ("file:/sys/class/net/e;x/mtu", "1", "echo 1 > '/sys/class/net/e;x/mtu'"),
        ("ring:eth0:rx", "512", "ethtool -G eth0 rx 512"),
        ("channels:eth0:combined", "4", "ethtool -L eth0 combined 4"),
        ("coalesce:eth0:rx-usecs", "0", "ethtool -C eth0 rx-usecs 0"),
        ("offload:e$0:gro", "rx-gro=on", "ethtool -K 'e$0' rx-gro on"),
        ("rss:eth0", "0 1 2 3 0 1 2 3", "ethtool -X eth0 equal 4"),
        ("rss:eth0", "0*3 1", "ethtool -X eth0 weight 3 1"),
        ("service:irqbalance", "inactive", "systemctl stop irqbalance"),
    ],
)
def test_lines_for_a_shell(name: str, value: str, line: str) -> None:
    assert targets.parse(name).shell(value) == line


def test_files_of_a_copy(tree: Any) -> None:
    root = tree(
        {
            "/proc/sys/net/core/somaxconn": "128\n",
            "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        }
    )
    with Access(root) as access:
        one = targets.parse("sysctl:net.core.somaxconn")
        one.write(access, "4096")
        assert one.read(access) == "4096"
        assert (
            targets.parse("file:/sys/kernel/mm/transparent_hugepage/enabled").read(access)
            == "madvise"
        )


@pytest.mark.networks
def test_a_driver(lab: Lab) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"), queues=2)
    with host.enter(), Access() as access:
        queues = targets.parse("channels:eth0:rx")
        queues.write(access, "1")
        assert queues.read(access) == "1"
        tso = targets.parse("offload:eth0:tso")
        old = tso.read(access)
        off = old.replace("=on", "=off")
        tso.write(access, off)
        assert tso.same(tso.read(access), off)
        tso.write(access, old)
        assert tso.same(tso.read(access), old)
        for name in ("ring:eth0:rx", "coalesce:eth0:rx-usecs", "rss:eth0", "offload:eth0:lro"):
            with pytest.raises(OSError, match=r"not supported|cannot switch"):
                targets.parse(name).read(access)


SYSTEMCTL = """#!/bin/sh
state=$(dirname "$0")/state
case "$1" in
is-active) cat "$state"; grep -q '^active' "$state" ;;
stop) if [ -e "$state.stuck" ]; then echo "it will not stop" >&2; exit 1; fi
      echo inactive >"$state" ;;
start) echo active >"$state" ;;
esac
"""


def test_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    (tmp_path / "state").write_text("active\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    service = targets.parse("service:irqbalance")
    with Access("/nowhere") as access:
        assert service.read(access) == "active"
        service.write(access, "inactive")
        assert service.read(access) == "inactive"
        (tmp_path / "state.stuck").touch()
        with pytest.raises(OSError, match="it will not stop"):
            service.write(access, "inactive")
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
        with pytest.raises(OSError, match="there is no systemctl"):
            service.read(access)
