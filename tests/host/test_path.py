"""The picture joins NIC, queues, interrupts, cores, softirqs, sockets and processes."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from millrace.host import NotAvailable, picture_svg, picture_text
from millrace.host.checks import Context
from millrace.host.finding import Verdict
from millrace.host.own import OwnChannel
from millrace.host.path import COLUMNS, MAX_BOXES, Picture, picture
from millrace.host.queues import ReceiveQueue


def draw(server: Any) -> Picture:
    context = Context(server.after, server.after - server.before)
    return picture(context, server.examine())


@pytest.fixture
def busy(server: Any) -> Any:
    server.irqs(lambda at: at % 4)
    server.queue_packets(*[10_000] * 7, 90_000)
    server.softirqs("NET_RX", cpu0=5000, cpu1=5000)
    server.softnet(1, dropped=40)
    return server.thread(share=0.7)


def lines(drawn: Picture) -> set[tuple[str, str]]:
    return {(line.source, line.target) for line in drawn.lines}


def test_the_way_of_a_packet(busy: Any) -> None:
    drawn = draw(busy)
    found = lines(drawn)
    assert ("nic eth0", "queue eth0 3") in found
    assert ("queue eth0 3", "irq 63") in found
    assert ("irq 63", "core 3") in found
    assert ("core 0", "softirq 0") in found
    assert ("socket 1 501", "process 812") in found
    shares = {line.target: line.share for line in drawn.lines if line.source == "nic eth0"}
    assert shares["queue eth0 7"] == 90_000 / 160_000
    assert [box.column for box in drawn.boxes] == sorted(
        (box.column for box in drawn.boxes), key=COLUMNS.index
    )
    ids = {box.id for box in drawn.boxes}
    assert len(ids) == len(drawn.boxes)
    assert all(line.source in ids and line.target in ids for line in drawn.lines)


def test_findings_colour_what_they_are_about(busy: Any) -> None:
    busy.link_counts(rx_missed_errors=500)
    boxes = {box.id: box for box in draw(busy).boxes}
    assert boxes["nic eth0"].verdict is Verdict.BAD
    assert boxes["softirq 1"].verdict is Verdict.BAD
    assert boxes["queue eth0 0"].verdict is None


def test_rps_goes_from_queue_to_core(server: Any) -> None:
    server.set(receive_queues=(ReceiveQueue("eth0", 0, (5, 6), 0),))
    rps = {(line.source, line.target) for line in draw(server).lines if line.label == "RPS"}
    assert rps == {("queue eth0 0", "core 5"), ("queue eth0 0", "core 6")}


def test_one_receiving_core_is_joined_to_the_sockets(server: Any) -> None:
    server.set(softirqs={"NET_RX": {0: 10}}).later(softirqs={"NET_RX": {0: 90}})
    server.set(irqs=())
    assert ("softirq 0", "socket 1 501") in lines(draw(server))


def test_interrupts_that_belong_to_no_queue_hang_on_the_device(server: Any) -> None:
    server.set(napis=())
    assert ("nic eth0", "irq 60") in lines(draw(server))


def test_large_machines_are_cut_and_told(server: Any, make_socket: Any) -> None:
    server.sockets(*(make_socket(n) for n in range(20, 120)))
    drawn = draw(server)
    assert len(drawn.column("socket")) == MAX_BOXES
    assert drawn.left_out == {"socket": 102 - MAX_BOXES}
    text = "\n".join(picture_text.draw(drawn))
    assert "(86 more: socket)" in text
    assert "86 more" in picture_svg.draw(drawn)


def test_without_anything(server: Any) -> None:
    parts = [name for name in type(server.after).__slots__ if name != "origin"]
    server.set(**{name: NotAvailable("gone") for name in parts})
    drawn = picture(Context(server.after, None))
    assert drawn.boxes == ()
    assert picture_text.draw(drawn)[0] == "server, Linux 6.18.0"
    ElementTree.fromstring(picture_svg.draw(drawn))


def test_text(busy: Any) -> None:
    text = picture_text.draw(draw(busy))
    assert text[0] == "server, Linux 6.18.0"
    assert text[1].startswith("eth0")
    assert "ice, MTU 1500, 25 Gbit/s" in text[1]
    assert any("IRQ 63  ice-eth0-TxRx-3" in line for line in text)
    assert any("NET_RX (!!)" in line and "40 dropped" in line for line in text)
    plain = picture_text.draw(draw(busy), unicode=False)
    assert len(plain) == len(text)
    assert all(line.isascii() for line in plain)


def test_svg_is_whole_and_stands_alone(busy: Any) -> None:
    text = picture_svg.draw(draw(busy))
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    words = [node.text for node in root.iter() if node.text]
    assert "NIC" in words
    assert any("nginx[812]" in word for word in words)
    for foreign in ("<script", "href", "url(", "@import", "<image", "<foreignObject"):
        assert foreign not in text
    # The only address is the name of SVG's own namespace, which nobody fetches.
    assert text.count("http") == 1


def test_names_cannot_become_markup(server: Any) -> None:
    evil = '"><script>alert(1)</script>'
    server.link(name=evil).device(name=evil)
    (process,) = server.after.processes
    server.set(processes=(dataclasses.replace(process, name=evil),))
    server.set(own=(OwnChannel(1, evil, evil, 1, 0, {}),))
    text = picture_svg.draw(draw(server))
    assert "<script" not in text
    ElementTree.fromstring(text)
