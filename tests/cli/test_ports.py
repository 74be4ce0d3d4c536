"""`millrace ports` tells the truth about this machine."""

from __future__ import annotations

import json
import os
import socket

import pytest

from millrace.cli import main, probe
from millrace.lab import userns

KINDS = ["af_xdp", "af_packet", "tap", "memory", "pcap", "kernel", "user_namespace", "hugepages"]


@pytest.fixture
def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["ports", "--json", "-"]) == 0
    return {row["port"]: row for row in json.loads(capsys.readouterr().out)}


def test_every_kind_has_a_row(rows: dict[str, dict[str, object]]) -> None:
    assert list(rows) == KINDS
    for row in rows.values():
        assert list(row) == ["port", "available", "where", "detail", "needs"]
        assert bool(row["detail"]) is row["available"]
        assert row["available"] or row["needs"], "what is missing must say what it takes"
        assert (row["where"] is None) is not row["available"]


def test_af_packet_is_available_where_a_socket_opens(rows: dict[str, dict[str, object]]) -> None:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        opens = True
    except PermissionError:
        opens = False
    assert (rows["af_packet"]["where"] == "here") is opens


@pytest.mark.networks
def test_nothing_is_left_behind(rows: dict[str, dict[str, object]]) -> None:
    assert rows["kernel"]["available"] is True
    assert not [name for _, name in socket.if_nameindex() if name.startswith("mrprobe")]


def without_capabilities(attempt: str) -> str:
    """What an attempt in a user namespace of no rights says: an ordinary user's answer."""

    def drop_and_try() -> str:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            getattr(probe, attempt)()
        except probe.Missing as error:
            return str(error)
        return ""

    works, text = probe._in_child(drop_and_try, enter_user_namespace=False)
    assert works, text
    return text


@pytest.mark.networks
@pytest.mark.parametrize(
    ("attempt", "needs"),
    [
        ("try_af_xdp", "CAP_NET_RAW to open an AF_XDP socket; run as root"),
        ("try_af_packet", "CAP_NET_RAW to open an AF_PACKET socket; run as root"),
    ],
)
def test_ordinary_user(attempt: str, needs: str) -> None:
    assert without_capabilities(attempt) == needs


@pytest.mark.networks
def test_ordinary_user_and_tap() -> None:
    # Which of the two it is depends on the mode of /dev/net/tun.
    assert "run as root" in without_capabilities("try_tap")


def test_attempt_that_dies_is_reported() -> None:
    works, text = probe._in_child(lambda: os._exit(9), enter_user_namespace=False)
    assert (works, text) == (False, "an attempt that does not end by status 9")


def test_probes_leave_this_process_where_it_was() -> None:
    before = (os.stat("/proc/self/ns/net").st_ino, userns.may_make_networks())
    probe.all_findings()
    assert (os.stat("/proc/self/ns/net").st_ino, userns.may_make_networks()) == before
