"""Snapshots: every part or the reason why not, one file, no privilege needed, no trust in files."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from millrace.host import PARTS, NotAvailable, Observer, Snapshot, codec, load, save, snapshot
from millrace.host.sysctl import HOST_WIDE, path_of
from millrace.lab import Host, Lab, syscalls


def unprivileged(host: Host, function: Any) -> Any:
    """What a function gives that runs as nobody on a host."""

    def drop() -> Any:
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            return function()
        finally:
            os.seteuid(0)

    return host.call(drop)


def take(*parts: str) -> Snapshot:
    with Observer() as observer:
        return observer.snapshot(parts or PARTS)


@pytest.mark.networks
def test_every_part_is_there(lab: Lab) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"), queues=2, offloads={"gro": True})
    with host.enter(), socket.create_server(("127.0.0.1", 80)):
        found = take()
    assert set(found.missing()) <= {"own", "drops"}
    assert found.origin.host == socket.gethostname()
    assert not found.origin.initial_namespace
    assert found.origin.seconds < 60
    assert hash(found.origin)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.links = ()  # type: ignore[misc]


@pytest.mark.networks
def test_file_and_back(lab: Lab, tmp_path: Path) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"), queues=2, offloads={"gro": True})
    with host.enter(), socket.create_server(("127.0.0.1", 80)):
        first, second = take(), take()
    path = tmp_path / "bundle.json"
    save([first, second], path)
    assert load(path) == (first, second)
    first.save(path)
    assert load(path) == (first,)
    assert os.listdir(tmp_path) == ["bundle.json"]


def test_only_what_was_asked_for() -> None:
    found = take("softnet", "counters")
    assert isinstance(found.softnet, tuple)
    assert found.links == NotAvailable("not asked for")
    assert found.missing() == {}
    with pytest.raises(ValueError, match="no part 'nosuch'; it has links"):
        take("nosuch")


@pytest.mark.networks
def test_without_root(lab: Lab) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"))
    found = unprivileged(host, take)
    assert found.origin.uid == 65534
    assert [link.name for link in found.links] == ["lo", "eth0"]
    assert found.counters
    assert found.privileges.capabilities == ()
    # It may not mount the sysfs of its namespace, and the one it sees is another's.
    assert {queue.interface for queue in found.receive_queues or ()} == set()


@pytest.mark.networks
def test_host_wide_settings_are_not_missed(lab: Lab) -> None:
    with lab.host("a").enter():
        sysctls = take("sysctls").sysctls
    assert isinstance(sysctls, dict)
    assert "whole machine's" in str(sysctls["net.core.netdev_max_backlog"])
    assert isinstance(sysctls["net.core.somaxconn"], str)
    assert set(HOST_WIDE) <= set(sysctls)


@pytest.mark.networks
def test_an_interface_with_a_dot(lab: Lab) -> None:
    host = lab.host("a")
    lab.wire(host, lab.host("b"), names=("mill.7", None))
    with host.enter():
        found = take("sysctls", "receive_queues")
    assert found.sysctls["net/ipv4/conf/mill.7/rp_filter"] in ("0", "1", "2")  # type: ignore[index]
    assert "mill.7" in {queue.interface for queue in found.receive_queues or ()}


@pytest.mark.parametrize("key", ["net..x", "net/../../x", "", "a.\0"])
def test_names_that_are_no_setting(key: str) -> None:
    with pytest.raises(ValueError, match="no name of a sysctl"):
        path_of(key)


@pytest.mark.networks
def test_an_interface_goes_away_meanwhile(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"))
    readers = dict(snapshot.READERS)

    def vanish(access: Any) -> Any:
        found = readers["links"](access)
        wire.remove()
        return found

    monkeypatch.setattr(snapshot, "READERS", readers | {"links": vanish})
    with host.enter():
        found = take()
    assert [link.name for link in found.links or ()] == ["lo", "eth0"]
    assert [device.name for device in found.devices or ()] == ["lo"]


@pytest.mark.networks
def test_a_thread_that_moved_is_told(lab: Lab) -> None:
    with (
        Observer() as observer,
        lab.host("a").enter(),
        pytest.raises(RuntimeError, match="another network namespace"),
    ):
        observer.snapshot()


def test_a_copy_of_files_has_what_files_have(tree: Any) -> None:
    root = tree(
        {
            "/proc/net/softnet_stat": "0000000a 00000000 00000001",
            "/sys/class/net/eth0/ifindex": "2",
            "/sys/class/net/eth0/queues/rx-0/rps_cpus": "3",
        }
    )
    with Observer(root) as observer:
        found = observer.snapshot()
    assert found.softnet[0].processed == 10  # type: ignore[index]
    assert found.receive_queues[0].rps_cpus == (0, 1)  # type: ignore[index]
    assert "a copy of files has no netlink" in str(found.links)
    assert found.origin.initial_namespace


def test_strange_contents_are_a_reason(tree: Any) -> None:
    with Observer(tree({"/proc/net/softnet_stat": "no numbers"})) as observer:
        found = observer.snapshot(["softnet"])
    assert "in a form not known here" in str(found.softnet)


def write(path: Path, **changes: Any) -> Path:
    data = {"format": "millrace-host", "version": 1, "snapshots": []}
    path.write_text(json.dumps(data | changes))
    return path


ORIGIN = codec.to_json(take("softnet").origin)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "no bundle of millrace doctor --save"),
        ({"version": 2}, "has version 2 of the format"),
        ({"version": "\x1b[2J"}, "has version"),
        ({}, "has 0 snapshots, not 1 to 16"),
        ({"snapshots": [{"origin": ORIGIN}] * 17}, "has 17 snapshots"),
        ({"snapshots": 7}, "_Bundle.snapshots is no list"),
        ({"snapshots": [{}]}, "Snapshot.origin|snapshots.origin is missing"),
        ({"snapshots": [{"origin": ORIGIN, "links": [{"name": 7}]}]}, "links.name is no text"),
        ({"snapshots": [{"origin": ORIGIN, "softnet": {"a": 1}}]}, "softnet is no list"),
        (
            {"snapshots": [{"origin": ORIGIN, "softnet": [{"dropped": 1 << 70}]}]},
            "softnet.dropped is no whole number below",
        ),
    ],
)
def test_bundles_that_are_none(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "bundle.json", **changes))


def test_no_bundle_at_all(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="no bundle"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nosuch")


@pytest.mark.networks
def test_a_full_disk_leaves_the_old_file(lab: Lab, tmp_path: Path) -> None:
    def fill() -> tuple[int | None, list[str], str]:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=8k")
        path = tmp_path / "bundle.json"
        path.write_text("old")
        try:
            take("sysctls", "counters").save(path)
        except OSError as error:
            return error.errno, os.listdir(tmp_path), path.read_text()
        return None, [], ""

    assert lab.host("a").call(fill) == (errno.ENOSPC, ["bundle.json"], "old")
