"""Files of the kernel's are bounded, belong to this namespace, and may vanish."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from millrace.host import files as module
from millrace.host.files import Files
from millrace.host.unavailable import NotAvailable
from millrace.lab import Lab


def test_a_copy(tree: Any) -> None:
    root = tree({"/proc/net/snmp": "Ip: a\n", "/sys/class/net/eth0": "-> ../../devices/x/net/eth0"})
    with Files(root) as files:
        assert files.read("/proc/net/snmp") == "Ip: a"
        assert files.target("/sys/class/net/eth0") == "/sys/devices/x/net/eth0"
        assert files.target("/proc/net/snmp") is None
        assert files.names("/proc/net") == ["snmp"]
        assert files.names("/proc/nosuch") == []


def test_what_is_missing_says_why(tree: Any) -> None:
    with Files(tree({"/proc/words": "many words"})) as files:
        assert files.text("/proc/x") == NotAvailable("/proc/x: No such file or directory")
        assert "holds 'many words', which is no number" in str(files.number("/proc/words"))


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/../etc/passwd", "relative", "/procx/a"])
def test_no_other_files(path: str) -> None:
    with Files("/") as files, pytest.raises(ValueError, match="no path below /proc or /sys"):
        files.read(path)


def test_an_endless_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/long").symlink_to("/dev/zero")
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1 << 20)
    with Files(tmp_path) as files:
        assert files.text("/proc/long") == NotAvailable("/proc/long: more than 1 MiB")


@pytest.mark.networks
def test_sysfs_is_this_namespaces(lab: Lab) -> None:
    host, other = lab.host("a"), lab.host("b")
    wire = lab.wire(host, other, names=("mill0", "mill1"))
    with host.enter(), Files() as files:
        assert files.names("/sys/class/net") == ["lo", "mill0"]
        assert files.number("/sys/class/net/mill0/ifindex") == wire.a.ifindex
        wire.remove()
        # It vanished between the listing and the reading.
        assert isinstance(files.number("/sys/class/net/mill0/ifindex"), NotAvailable)


@pytest.mark.networks
def test_foreign_sysfs_is_not_believed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise PermissionError(1, "no mounts for you")

    monkeypatch.setattr(module, "_mount_sysfs", refuse)
    with lab.host("a").enter(), Files() as files:
        said = files.text("/sys/class/net/lo/mtu")
    assert isinstance(said, NotAvailable)
    with Files() as files:
        assert files.number("/sys/class/net/lo/mtu") == int(
            Path("/sys/class/net/lo/mtu").read_text()
        )


def test_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    Files().close()
    assert len(os.listdir("/proc/self/fd")) == before
