"""The page shows what was found, needs nothing else, and looks right in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from millrace.host.doctor import Diagnosis, examine
from millrace.host.page import page

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def spoiled(server: Any) -> Diagnosis:
    server.link_counts(rx_missed_errors=500)
    server.irqs(lambda at: at % 4).queue_packets(*[20_000] * 8)
    server.counters(UdpRcvbufErrors=200, UdpInDatagrams=10_000)
    server.softirqs("NET_RX", cpu0=40_000, cpu1=40_000, cpu2=40_000, cpu3=40_000)
    for cpu in range(4):
        server.times(cpu, user=0.3, softirq=0.2)
    return examine([server.before, server.after])


class Balanced(HTMLParser):
    """Fails on an element that is closed wrongly."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_and_stands_alone(server: Any) -> None:
    text = page(spoiled(server))
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "nic-drops" in text
    assert "ethtool -G eth0 rx 1024" in text
    assert "eth0 rx_missed_errors 500" in text
    for foreign in ("<script", "<link", "<img", "<iframe", "url(", "@import"):
        assert foreign not in text
    assert re.findall(r"https?://[^\"']*", text) == ["http://www.w3.org/2000/svg"]
    assert "default-src &#x27;none&#x27;" in text


def test_a_healthy_machine_says_so(server: Any) -> None:
    text = page(examine([server.before, server.after]))
    assert "Nothing to complain about." in text
    alone = page(examine([server.after]))
    assert "it takes two snapshots" in alone


def chromium(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if _CHROMIUM is None:
        pytest.skip("needs chromium")
    common = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    return subprocess.run(
        [_CHROMIUM, *common, "--virtual-time-budget=2000", *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


def test_a_browser_shows_it(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "doctor.html"
    path.write_text(page(spoiled(server)))
    shown = chromium(tmp_path, "--dump-dom", f"file://{path}").stdout
    # What the browser made of it, not what was written.
    found = re.findall(r'<article class="(\w+)" id="([\w-]+)">', shown)
    assert ("bad", "nic-drops") in found
    assert ("bad", "udp-receive-buffer") in found
    assert '<span id="count-bad">2 bad</span>' in shown
    assert re.search(r'<tr class="lost"><td>ring</td><td class="number">160,000</td>', shown)
    assert shown.count("<rect") > 20
    assert "NET_RX" in shown


def test_a_browser_finds_nothing_to_run(server: Any, tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    server.link(name=evil)
    path = tmp_path / "doctor.html"
    text = page(examine([server.before, server.after]))
    path.write_text(text)
    shown = chromium(tmp_path, "--dump-dom", f"file://{path}").stdout
    assert "<title>millrace doctor: server</title>" in shown
    assert "<script" not in shown
    assert "<img" not in shown


def test_a_browser_can_take_a_picture_of_it(server: Any, tmp_path: Path) -> None:
    path, picture = tmp_path / "doctor.html", tmp_path / "doctor.png"
    path.write_text(page(spoiled(server)))
    chromium(
        tmp_path,
        "--hide-scrollbars",
        "--window-size=1500,1200",
        f"--screenshot={picture}",
        f"file://{path}",
    )
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 1500
    # A blank page would be a few kilobytes.
    assert len(data) > 50_000
