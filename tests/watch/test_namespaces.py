"""Names of network namespaces and of interfaces in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from millrace.lab import Lab
from millrace.watch import namespaces
from millrace.watch.namespaces import Names


@pytest.mark.networks
def test_hosts_of_a_lab_have_names_and_interfaces(lab: Lab) -> None:
    names = Names()
    host, other = lab.host("host"), lab.host("other")
    wire = lab.wire(host, other)
    inode = host.netns_path.stat().st_ino
    # It is newer than the names that are known.
    assert names.of(inode) == host.netns
    with host.enter():
        index = int(Path("/proc/thread-self/net/dev_mcast").read_text().split()[0] or 0)
    assert index > 0
    assert names.interface(inode, index) in {"lo", wire.a.name}
    assert names.interface(inode, 9999) == ""
    # The calling thread is where it was.
    assert namespaces.own() == os.stat("/proc/self/ns/net").st_ino


def test_what_is_not_known_has_a_number_and_our_own_no_name() -> None:
    names = Names()
    assert names.of(namespaces.own()) == ""
    assert names.of(0) == ""
    assert names.of(1234) == "net:1234"
    assert names.interface(1234, 1) == ""
    assert names.interface(namespaces.own(), 1) == "lo"


def test_a_folder_that_cannot_be_read_and_entries_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "_FOLDER", tmp_path / "nothing")
    assert namespaces.names() == {}
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "no-namespace").write_text("")
    monkeypatch.setattr(namespaces, "_FOLDER", tmp_path)
    assert list(namespaces.names().values()) == ["no-namespace"]
    # Not every file is a namespace.
    assert namespaces.interface_name(tmp_path / "no-namespace", 1) == ""
    assert namespaces.interface_name(tmp_path / "nothing", 1) == ""
