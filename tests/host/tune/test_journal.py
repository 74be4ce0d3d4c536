"""The journal is on disk before a write, survives cuts, and is believed only if it is ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.host.tune.journal import (
    Entry,
    Journal,
    Locked,
    State,
    encode,
    load,
    parse,
)

ENTRY = Entry(0, "sysctl:net.core.somaxconn", "128", "4096", "why", None, "throughput")


def written(*records: dict[str, object]) -> bytes:
    return b"".join(map(encode, records))


def intent(number: int = 0, **changes: object) -> dict[str, object]:
    record = {
        "kind": "intent",
        "number": number,
        "target": "sysctl:net.core.somaxconn",
        "old": "128",
        "new": "4096",
        "why": "why",
        "goal": "latency",
    }
    return record | changes


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with Journal(7, tmp_path) as journal:
        assert journal.state() == State()
        journal.begin("boot", "throughput")
        journal.intend(ENTRY)
        assert journal.state().entries[0].value is None
        journal.done(0, "4096")
        state = journal.state()
    assert state.boot == "boot"
    assert state.damage == ()
    assert state.entries[0].value == "4096"
    assert state.entries[0].target == ENTRY.target
    assert load(tmp_path / "tune-7.journal") == state
    with Journal(7, tmp_path) as journal:
        journal.forget(0, "undone")
        assert journal.state().entries == {}
        journal.clear()
        journal.clear()
    assert not (tmp_path / "tune-7.journal").exists()


def test_it_is_synced_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_mode), real(fd)))
    with Journal(7, tmp_path) as journal:
        journal.intend(ENTRY)
        # The file's name must last as well as its contents.
        assert [stat.S_ISDIR(mode) for mode in synced] == [True, False]
        journal.done(0, "4096")
        assert len(synced) == 3


@given(st.data())
def test_a_cut_journal_says_what_it_still_can(data: st.DataObject) -> None:
    whole = written(
        {"kind": "begin", "boot": "b", "goal": "g"},
        intent(0),
        {"kind": "done", "number": 0, "value": "4096"},
        intent(1, target="sysctl:vm.swappiness"),
    )
    keep = data.draw(st.integers(0, len(whole)))
    state = parse(whole[:keep])
    assert set(state.entries) <= {0, 1}
    # A record without its line's end is whole all the same: its checksum says so.
    lines = whole[: keep + 1].count(b"\n")
    assert len(state.entries) == (lines >= 2) + (lines >= 4)
    # A cut is told, unless it is between two lines or before the last line's end alone.
    if keep and not whole[:keep].endswith(b"\n") and whole[keep : keep + 1] != b"\n":
        assert state.damage
        assert "is cut" in state.damage[0]


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_is_told(at: int, flip: int) -> None:
    whole = bytearray(written({"kind": "begin", "boot": "b", "goal": "g"}, intent(0), intent(1)))
    at %= len(whole)
    if whole[at] == 10 or whole[at] ^ flip == 10:
        return  # two lines became one, or one two: also told, but counted otherwise
    whole[at] ^= flip
    state = parse(bytes(whole))
    assert state.damage
    assert len(state.entries) >= 1


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data: bytes) -> None:
    parse(data)


@pytest.mark.parametrize(
    "record",
    [
        intent(target="file:/etc/passwd"),
        intent(target="sysctl:kernel.core_pattern"),
        intent(number=-1),
        intent(number=True),
        intent(old=7),
        intent(new="x" * 100_000),
        {"kind": "done", "number": 5, "value": "x"},
        {"kind": "unknown", "number": 0},
        {"kind": "begin"},
        {},
    ],
)
def test_hostile_records_are_not_believed(record: dict[str, object]) -> None:
    state = parse(written(record) + encode(intent(3)))
    assert list(state.entries) == [3]
    assert "line 1 is damaged" in state.damage[0]


def test_a_record_goes_on_after_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "tune-7.journal"
    path.write_bytes(written(intent(0)) + encode(intent(1))[:20])
    with Journal(7, tmp_path) as journal:
        journal.done(0, "4096")
        state = journal.state()
    assert state.entries[0].value == "4096"
    assert len(state.damage) == 1


def test_a_second_one_is_locked_out(tmp_path: Path) -> None:
    with (
        Journal(7, tmp_path),
        pytest.raises(Locked, match=rf"another millrace tune is at work \(process {os.getpid()}\)"),
    ):
        Journal(8, tmp_path)
    Journal(8, tmp_path).close()


def test_only_its_owner_may_have_written_it(tmp_path: Path) -> None:
    path = tmp_path / "tune-7.journal"
    path.write_bytes(written(intent(0)))
    path.chmod(0o666)
    with pytest.raises(PermissionError, match="others could have written it"):
        load(path)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        with pytest.raises(PermissionError, match="others could have written it"):
            load(path)
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    with pytest.raises(PermissionError, match="others could have written it"):
        Journal(7, open_folder)


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "tune-7.journal").symlink_to(tmp_path / "elsewhere")
    with Journal(7, tmp_path) as journal, pytest.raises(OSError, match="symbolic links"):
        journal.intend(ENTRY)
    assert (tmp_path / "elsewhere").read_text() == ""


def test_a_large_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tune-7.journal"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    path.chmod(0o600)
    assert "larger than 16 MiB" in load(path).damage[0]
