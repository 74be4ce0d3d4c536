"""Pages of live channels, and files that only look like pages."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.watch import page
from millrace.watch.page import Page, PageError


@pytest.fixture
def shown(watched: Callable[..., Any]) -> Path:
    """The page of a channel that works."""
    return watched().found().pages[0].path


def copy(source: Path, target: Path, *changes: tuple[int, bytes]) -> Path:
    data = bytearray(source.read_bytes())
    for at, value in changes:
        data[at : at + len(value)] = value
    target.write_bytes(data)
    return target


def test_a_page_shows_numbers_tables_and_facts(watched: Callable[..., Any]) -> None:
    program = watched()
    # Tables are at most a second behind, and nothing tells when that second is over.
    while not (server := program.found().pages[1]).tables["listeners"].rows:
        pass
    assert server.facts["port"] == "memory:wire"
    assert server.number_of("port", "rx_packets") > 0
    assert server.number_of("stack", "connections_accepted") == 1
    assert server.number_of("state", "frames") == 2048
    kinds = {value.group: value.is_counter for value in server.values}
    assert kinds["stack"]
    assert kinds["port"]
    assert not server.damaged
    (listener,) = server.tables["listeners"]
    assert listener["local"] == ("::", 80)
    assert listener["backlog"] == 7
    (connection,) = server.tables["connections"]
    assert connection["state"] == "ESTABLISHED"
    assert connection["local"] == ("192.0.2.2", 80)
    assert server.tables["sockets"].rows[0][0] == ("::", 53)
    assert list(server.tables["addresses"]) == [{"address": "192.0.2.2/24", "state": "preferred"}]
    assert [row["address"] for row in server.tables["neighbours"]] == ["192.0.2.1"]
    assert server.tables["routes"].rows[0][0] == "192.0.2.0/24"


def test_only_its_user_may_read_it(shown: Path) -> None:
    assert shown.stat().st_mode & 0o777 == 0o600
    assert shown.parent.stat().st_mode & 0o777 == 0o700


def test_numbers_are_of_one_moment_while_they_are_written(watched: Callable[..., Any]) -> None:
    program = watched()
    program.do("[handle.write(bytes(100_000)) for _ in range(4)]")
    for _ in range(300):
        for one in program.found().pages:
            assert not one.damaged
            # Every frame that a memory wire brings is one that the stack takes.
            assert one.number_of("port", "rx_packets") == one.number_of("stack", "packets_in")


def test_a_block_that_is_being_written_for_ever_is_named(shown: Path, tmp_path: Path) -> None:
    offset, _ = struct.unpack_from("<II", shown.read_bytes(), 64 + 8 * 2)
    torn = page.read(copy(shown, tmp_path / "torn", (offset, struct.pack("<Q", 7))))
    assert "values" in torn.damaged
    assert torn.values == ()
    assert torn.facts["port"] == "memory:wire"


def test_a_changed_content_is_noticed(shown: Path, tmp_path: Path) -> None:
    offset, _ = struct.unpack_from("<II", shown.read_bytes(), 64 + 8 * 2)
    broken = page.read(copy(shown, tmp_path / "broken", (offset + 32, b"\xff" * 8)))
    assert "values" in broken.damaged


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, b"ELFELFEL", "no page of Millrace"),
        (8, struct.pack("<I", 2), "layout 2, and this millrace reads 1"),
        (12, struct.pack("<I", 1), "1 blocks"),
        (64, struct.pack("<II", 0, 10), "outside of the file"),
        (64 + 8, struct.pack("<II", 1 << 31, 10), "outside of the file"),
        (64 + 16, struct.pack("<II", 4096, 0xFFFFFFFF), "outside of the file"),
    ],
)
def test_a_damaged_head_is_refused(
    shown: Path, tmp_path: Path, at: int, value: bytes, why: str
) -> None:
    with pytest.raises(PageError, match=why):
        page.read(copy(shown, tmp_path / "damaged", (at, value)))


def test_what_is_no_file_of_that_size_is_refused(shown: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(shown.read_bytes()[:100])
    with pytest.raises(PageError, match="100 bytes"):
        page.read(short)
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PageError, match="which no page has"):
        page.read(huge)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PageError, match="no file"):
        page.read(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(shown)
    with pytest.raises(PageError, match="is a link"):
        page.read(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        page.read(tmp_path / "nothing")


def test_a_file_that_is_cut_while_it_is_read_is_an_error(shown: Path, tmp_path: Path) -> None:
    cut = copy(shown, tmp_path / "cut")
    size = cut.stat().st_size
    for length in range(128, size, 997):
        os.truncate(cut, size)
        copy(shown, cut)
        os.truncate(cut, length)
        with pytest.raises(PageError):
            page.read(cut)


def test_any_changed_byte_is_a_page_or_an_error(shown: Path, tmp_path: Path) -> None:
    data = shown.read_bytes()
    filled = [at for at in range(len(data)) if data[at]][::7]
    for at in filled:
        try:
            found = page.read(copy(shown, tmp_path / "flipped", (at, bytes([data[at] ^ 0x55]))))
        except PageError:
            continue
        assert isinstance(found, Page)
