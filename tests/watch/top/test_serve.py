"""The page, by hand and in a real browser without a window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.watch.http import Server
from millrace.watch.top.serve import Board

from . import made_up

MILLRACE = [sys.executable, "-m", "millrace"]


def still(end: threading.Event) -> Iterator[dict[str, Any]]:
    """One tick, with a picture and a name that is no text but a trap; then nothing more."""
    tick = made_up.tick()
    tick["picture"] = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    tick["views"]["stacks"][0]["process"] = "</script><img src=x onerror=alert(1)>"
    yield tick
    end.wait()


@pytest.fixture
def served() -> Iterator[tuple[Server, Board]]:
    with Board(still) as board, Server("127.0.0.1", 0, board.answer) as server:
        for _ in range(1000):
            if board._count:
                break
            time.sleep(0.005)
        yield server, board


def get(server: Server, path: str) -> tuple[bytes, dict[str, str]]:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.read(), dict(answer.headers)


def test_nothing_is_told_without_the_token(served: tuple[Server, Board]) -> None:
    server, board = served
    for path in ("/", "/tick.json", "/path.svg", "/nosuch"):
        for query in ("", "?token=", "?token=wrong", f"?token={board.token}x"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                get(server, path + query)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, f"/nosuch?token={board.token}")


def test_each_run_has_a_token_of_its_own() -> None:
    assert Board(still).token != Board(still).token
    assert len(Board(still).token) >= 32


def test_the_page_needs_nothing_from_elsewhere(served: tuple[Server, Board]) -> None:
    server, board = served
    body, headers = get(server, f"/?token={board.token}")
    page = body.decode()
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce is not None
    assert page.count(f'nonce="{nonce[1]}"') == 2
    assert "NONCE" not in page
    assert "VIEWS_JSON" not in page
    assert headers["Referrer-Policy"] == "no-referrer"
    links = re.findall(r"""(?:src|href|url\()\s*=?\s*["'(]?(https?:[^"')\s]+)""", page)
    assert links == []
    assert get(server, f"/?token={board.token}")[1]["Content-Security-Policy"] != policy


def test_the_data_is_the_tick(served: tuple[Server, Board]) -> None:
    server, board = served
    body, headers = get(server, f"/tick.json?token={board.token}")
    data = json.loads(body)
    assert headers["Content-Type"] == "application/json"
    assert (data["count"], data["failure"]) == (1, "")
    assert data["tick"]["views"]["cpus"] == made_up.tick()["views"]["cpus"]
    picture, headers = get(server, f"/path.svg?token={board.token}")
    assert picture.startswith(b"<svg")
    assert headers["Content-Type"].startswith("image/svg+xml")


def test_what_goes_wrong_is_told() -> None:
    def broken(end: threading.Event) -> Iterator[dict[str, Any]]:
        raise OSError(5, "the machine is on fire")
        yield {}

    with Board(broken) as board, Server("127.0.0.1", 0, board.answer) as server:
        board._thread.join(10)
        data = json.loads(get(server, f"/tick.json?token={board.token}")[0])
    assert data["tick"] is None
    assert "on fire" in data["failure"]


def browse(url: str, folder: Path, *words: str) -> str:
    """What a browser without a window makes of a page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; apt-get install chromium")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={folder}",
            "--virtual-time-budget=4000",
            *words,
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_shows_it(served: tuple[Server, Board], tmp_path: Path) -> None:
    server, board = served
    page = browse(f"{server.url}/?token={board.token}", tmp_path, "--dump-dom")
    text = html.unescape(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    assert "a-host" in text
    assert "123M packets/s" in text
    assert "1 Gbit/s" in text
    assert "permission denied" in text
    for name in ("overview", "stacks", "timeline"):
        assert f">{name}</button>" in text
    assert "<svg" in page
    assert "polyline" in page
    assert f"/path.svg?token={board.token}" in text
    # No name of a process becomes a part of the page.
    assert "onerror" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.networks
@pytest.mark.usefixtures("tracing")
def test_the_command_serves_this_machine_to_a_browser(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*MILLRACE, "top", "--serve", "--interval", "0.3"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    match = re.search(r"open (http://127\.0\.0\.1:\d+/\?token=\S+)", process.stderr.readline())
    assert match is not None
    try:
        data = match[1].replace("/?", "/tick.json?")
        for _ in range(400):
            with urllib.request.urlopen(data, timeout=30) as answer:
                told = json.loads(answer.read())
            if told["count"] > 3 and told["tick"].get("picture"):
                break
            time.sleep(0.05)
        assert told["failure"] == ""
        assert told["tick"]["picture"].startswith("<svg")
        picture = tmp_path / "top.png"
        browse(match[1], tmp_path / "profile", f"--screenshot={picture}", "--window-size=1280,1400")
        assert picture.read_bytes().startswith(b"\x89PNG")
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stderr.close()
