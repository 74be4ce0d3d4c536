"""Interfaces of a lab, against what ip and ethtool say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from millrace.host import Observer
from millrace.lab import Lab
from millrace.net import Channel
from millrace.watch import interfaces, processes

pytestmark = pytest.mark.networks


def test_a_line_says_what_ip_says(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server, mtu=1400)
    client.run(["ping", "-c", "3", "-i", "0.01", str(wire.b.ip)])
    with client.enter(), Observer() as observer:
        found = {line.interface: line for line in interfaces.lines(observer.snapshot())}
    line = found[wire.a.name]
    said = json.loads(client.run(["ip", "-s", "-j", "link", "show", wire.a.name]).stdout)[0]
    counted = said["stats64"]
    assert (line.mtu, line.state) == (said["mtu"], said["operstate"]) == (1400, "UP")
    assert line.rx_packets == counted["rx"]["packets"] >= 3
    assert line.tx_bytes == counted["tx"]["bytes"]
    assert (line.kind, line.driver) == ("veth", "veth")
    assert line.addresses.startswith(str(wire.a.ip))
    assert found["lo"].kind == "loopback"


def test_rates_are_of_the_time_in_between(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    with client.enter(), Observer() as observer:
        before = observer.snapshot(("links",))
        client.run(["ping", "-c", "5", "-i", "0.01", str(wire.b.ip)])
        after = observer.snapshot(("links",))
        lines = {line.interface: line for line in interfaces.lines(after, (), before)}
    seconds = after.origin.clock - before.origin.clock
    packets = lines[wire.a.name].rx_packets
    assert lines[wire.a.name].rx_pps == pytest.approx(packets / seconds, rel=0.5)
    assert lines[wire.a.name].rx_bps > 0
    assert lines["lo"].rx_pps == 0


def test_details_say_what_ethtool_says(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server, queues=2, offloads={"tso": False})
    with client.enter(), Observer() as observer:
        sections = dict(interfaces.details(observer.snapshot(), wire.a.name))
    features = client.run(["ethtool", "-k", wire.a.name]).stdout
    assert "tx-tcp-segmentation: off" in features
    offloads = dict(sections["offloads"])
    assert "tx-tcp-segmentation" in offloads["off"].split()
    assert "rx-checksum" in offloads["on"].split()
    driver = dict(sections["driver"])
    assert "not available" in driver["rings"]
    assert driver["channels"].startswith("rx 2,")
    link = dict(sections["link"])
    assert link["queues"] == "2 receive, 2 transmit"
    assert "in namespace" in link["other end or below"]


def test_channels_are_named_where_they_are(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    with client.enter():
        address = wire.address()
        with Channel(f"af_packet:{wire.a.name}", address, frames=2048, hugepages=False):
            with Observer() as observer:
                snapshot = observer.snapshot()
            found = processes.find()
            lines = {one.interface: one for one in interfaces.lines(snapshot, found.pages)}
            assert "(af_packet)" in lines[wire.a.name].millrace
            sections = dict(interfaces.details(snapshot, wire.a.name, found.pages))
            assert "(af_packet)" in sections["millrace"][0][1]
    # Another namespace has an interface of the same name.
    with server.enter(), Observer() as observer:
        lines = {one.interface: one for one in interfaces.lines(observer.snapshot(), found.pages)}
        assert lines[wire.b.name].millrace == ""


def test_the_command(lab: Lab, watched: Callable[..., Any]) -> None:
    host = lab.host("alone")

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return host.run([sys.executable, "-m", "millrace", "interfaces", *words], check=check)

    (line,) = json.loads(run("--json", "-").stdout)
    assert (line["interface"], line["state"], line["trouble"]) == ("lo", "UP", 0)
    rows = json.loads(run("lo", "--json", "-").stdout)
    assert {"section": "link", "interface": "lo", "name": "state", "text": "UP, carrier"} in rows
    assert "super-segments" in run("lo").stdout
    missing = run("eth9", check=False)
    assert missing.returncode == 1
    assert "there is no interface eth9 here; there are: lo" in missing.stderr
