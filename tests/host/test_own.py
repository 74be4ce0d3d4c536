"""What `millrace.watch` tells becomes a part of the snapshot; without it, a reason does."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import types
from typing import Any

import pytest

from millrace.host import NotAvailable, Observer, Unavailable
from millrace.host.access import Access
from millrace.host.checks import Context
from millrace.host.doctor import examine, look
from millrace.host.own import OwnChannel, counting_drops, read_own
from millrace.lab import Lab

HAS_WATCH = importlib.util.find_spec("millrace.watch") is not None


def value(group: str, name: str, number: int) -> Any:
    return types.SimpleNamespace(group=group, name=name, number=number)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Modules in the place of `millrace.watch`, with one page of this process."""
    page = types.SimpleNamespace(
        name="af_xdp:eth0",
        number=2,
        facts={
            "thread": str(os.getpid()),
            "network namespace": os.readlink("/proc/thread-self/ns/net"),
        },
        values=(
            value("state", "frames", 4096),
            value("port", "rx_packets", 7),
            value("port_drop", "rx_ring_full", 3),
            value("stack", "drop_ethernet_not_ours", 9),
        ),
    )
    process = types.SimpleNamespace(pid=os.getpid(), title="echo:5", is_foreign=False)
    found = types.SimpleNamespace(pages=[(process, page)])
    rows = [
        types.SimpleNamespace(source="kernel", namespace="", reason="NO_SOCKET", packets=5),
        types.SimpleNamespace(source="kernel", namespace="", reason="NO_SOCKET", packets=2),
        types.SimpleNamespace(source="kernel", namespace="x", reason="NO_SOCKET", packets=99),
        types.SimpleNamespace(source="echo:5", namespace="", reason="rx_ring_full", packets=1),
    ]
    state = types.SimpleNamespace(found=found, page=page, process=process, blind="", rows=rows)

    class Watch:
        def __init__(self, selection: Any) -> None:
            assert selection == "losses"
            self.blind = state.blind

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            state.ended = True

        def look(self) -> None:
            state.looked = True

        def rows(self) -> list[Any]:
            return state.rows

    def kind(name: str) -> Any:
        return types.SimpleNamespace(kind="benign" if "not_ours" in name else "loss")

    def select() -> str:
        return "losses"

    modules = {
        "processes": types.SimpleNamespace(find=lambda: state.found),
        "reasons": types.SimpleNamespace(of_own=kind),
        "drops": types.SimpleNamespace(Watch=Watch, Selection=select),
    }
    monkeypatch.setitem(sys.modules, "millrace.watch", types.ModuleType("millrace.watch"))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"millrace.watch.{name}", module)
    return state


def test_pages_become_channels(stand_in: Any) -> None:
    with Access() as access:
        (one,) = read_own(access)
    assert (one.pid, one.process, one.port, one.number) == (os.getpid(), "echo", "af_xdp:eth0", 2)
    assert one.interface == "eth0"
    assert one.cpu in os.sched_getaffinity(0)
    assert one.values == {
        "frames": 4096,
        "rx_packets": 7,
        "drop_rx_ring_full": 3,
        "benign_ethernet_not_ours": 9,
    }


def test_other_namespaces_are_left_out(stand_in: Any) -> None:
    stand_in.process.is_foreign = True
    with Access() as access, pytest.raises(Unavailable, match="no Millrace channel runs"):
        read_own(access)
    stand_in.process.is_foreign = False
    stand_in.page.facts["network namespace"] = "net:[1]"
    with Access() as access, pytest.raises(Unavailable, match="no Millrace channel runs"):
        read_own(access)


def test_a_channel_on_no_interface() -> None:
    assert OwnChannel(1, "x", "memory", 1, -1, {}).interface == ""


def test_reasons_are_counted_for_the_window(stand_in: Any) -> None:
    with counting_drops() as (begin, counted):
        assert begin == {}
        assert counted() == {"NO_SOCKET": 7}
    assert stand_in.looked
    assert stand_in.ended
    before, after = look(0.01)
    assert (before.drops, after.drops) == ({}, {"NO_SOCKET": 7})
    (found,) = examine([before, after], checks=["drop-reasons"]).findings
    assert "NO_SOCKET: 7 packets dropped" in found.evidence


def test_blindness_is_a_reason(stand_in: Any) -> None:
    stand_in.blind = "Operation not permitted"
    with counting_drops() as (begin, counted):
        assert isinstance(begin, NotAvailable)
        assert "Operation not permitted" in begin.why
        assert counted() is begin


def test_without_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "millrace.watch", None)
    for name in ("processes", "drops"):
        monkeypatch.setitem(sys.modules, f"millrace.watch.{name}", None)
    with Observer() as observer:
        assert isinstance(observer.snapshot(["own"]).own, NotAvailable)
    with counting_drops() as (begin, counted):
        assert begin == counted()
        assert isinstance(begin, NotAvailable)


CHANNEL = """
import sys
import millrace
with millrace.Channel("memory", "192.0.2.9/24") as channel:
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not HAS_WATCH, reason="needs millrace.watch")
@pytest.mark.networks
def test_the_kernels_reasons_for_real(lab: Lab) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"))

    def send(_seconds: float) -> None:
        with wire.b.host.enter():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            for _ in range(200):
                sender.sendto(b"x", (wire.a.ip, 5000))

    with host.enter():
        before, after = look(1.0, wait=send)
    assert before.drops == {}
    assert not isinstance(after.drops, NotAvailable)
    assert after.drops["NO_SOCKET"] == 200
    found = examine([before, after], checks=["drop-reasons"]).findings
    assert any("NO_SOCKET: 200 packets dropped" in one.evidence for one in found)


@pytest.mark.skipif(not HAS_WATCH, reason="needs millrace.watch")
@pytest.mark.networks
def test_a_channel_for_real(lab: Lab) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"), addresses=(None, "192.0.2.2/24"))
    source = CHANNEL.replace('"memory"', f'"af_packet:{wire.a.name}"')
    program = host.popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "ready\n"
    with host.enter(), Observer() as observer:
        found = observer.snapshot()
        (one,) = found.own
        checked = {finding.check: finding for finding in examine([found]).findings}
        assert Context(found, None).links[0].name == one.interface
    program.communicate("")
    assert (one.pid, one.interface) == (program.pid, wire.a.name)
    assert one.values["frames"] >= one.values["frames_free"] > 0
    assert "own-connections" in checked
