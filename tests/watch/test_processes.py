"""Which processes are found, and what becomes of the files of those that died."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.watch import processes


def test_a_process_is_found_with_all_its_channels(watched: Callable[..., Any]) -> None:
    program = watched()
    found = program.found()
    assert [one.number for one in found.pages] == [0, 1]
    assert found.uid == os.geteuid()
    assert found.title.endswith(f":{program.process.pid}")
    assert found.socket is not None
    assert found.socket.exists()


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("/usr/sbin/nginx -g daemon off;", "nginx"),
        ("/opt/venv/bin/python3.12 -u /srv/app/server.py --port 80", "server.py"),
        ("python -m millrace serve", "millrace"),
        ("python -c import this", "python"),
        ("python", "python"),
        ("", "?"),
    ],
)
def test_programs_have_the_names_that_people_use(command: str, title: str) -> None:
    assert processes.program_of(command.split(" ")) == title


def test_a_process_that_ends_leaves_nothing(watched: Callable[..., Any], run_folder: Path) -> None:
    program = watched()
    assert len(list(run_folder.iterdir())) == 3
    program.end()
    assert list(run_folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    dead, alive = watched(), watched()
    dead.kill()
    assert len(list(run_folder.iterdir())) == 6
    assert [p.pid for p in processes.find().processes] == [alive.process.pid]
    assert len(list(run_folder.iterdir())) == 3


def test_the_next_process_removes_it_as_well(watched: Callable[..., Any], run_folder: Path) -> None:
    watched().kill()
    assert len(list(run_folder.iterdir())) == 3
    watched()
    assert len(list(run_folder.iterdir())) == 3


def test_a_process_with_the_number_of_a_dead_one_is_another(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    program = watched()
    for path in list(run_folder.iterdir()):
        pid, start, rest = path.name.split("-", 2)
        path.rename(run_folder / f"{pid}-{int(start) - 1}-{rest}")
    assert processes.find() == processes.Found((), ())
    assert list(run_folder.iterdir()) == []
    program.kill()


def test_pages_of_another_boot_are_removed(watched: Callable[..., Any]) -> None:
    path = watched().found().pages[0].path
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert [one.number for _, one in processes.find().pages] == [1]
    assert not path.exists()


def test_one_in_another_pid_namespace_is_neither_judged_nor_removed(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    program = watched()
    path = program.found().pages[0].path
    name = path.name
    pid, start, namespace, rest = *name.split(".")[0].split("-"), name.split(".", 1)[1]
    foreign = run_folder / f"1-{start}-{int(namespace) + 1}.{rest}"
    data = bytearray(path.read_bytes())
    data[16:20] = (1).to_bytes(4, "little")
    data[32:40] = (int(namespace) + 1).to_bytes(8, "little")
    foreign.write_bytes(data)
    del pid
    found = [p for p in processes.find().processes if p.is_foreign]
    assert [p.pid for p in found] == [1]
    assert foreign.exists()


def test_files_that_claim_to_be_somebody_elses_are_named(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    program = watched()
    path = program.found().pages[0].path
    lie = run_folder / path.name.replace(".0.page", ".7.page")
    data = bytearray(path.read_bytes())
    data[16:20] = (os.getpid()).to_bytes(4, "little")
    lie.write_bytes(data)
    (run_folder / path.name.replace(".0.page", ".8.page")).write_text("no page")
    (run_folder / "notes.txt").write_text("not looked at")
    found = processes.find()
    assert len(found.processes[0].pages) == 2
    assert len(found.problems) == 2
    assert any("unlike its name" in problem for problem in found.problems)
    assert any("bytes, which no page has" in problem for problem in found.problems)


def test_a_folder_that_others_may_write_to_is_not_read(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    watched()
    run_folder.chmod(0o777)
    found = processes.find()
    assert found.processes == ()
    assert "may be written by others" in found.problems[0]


def test_without_a_folder_there_is_nothing(run_folder: Path) -> None:
    assert processes.find() == processes.Found((), ())


@pytest.mark.parametrize("value", ["0", "off", "no"])
def test_it_can_be_switched_off(watched: Callable[..., Any], run_folder: Path, value: str) -> None:
    watched(MILLRACE_WATCH=value)
    assert not run_folder.exists()


def test_a_channel_works_unwatched_and_says_why(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    run_folder.write_text("no folder")
    program = watched()
    program.do("assert client.watch_page is None and 'is no folder' in client.facts['watch']")
    program.do("assert Channel('memory:other', '192.0.2.9/24', watch=False).watch_page is None")


def test_a_child_that_was_forked_leaves_its_parents_files(
    watched: Callable[..., Any], run_folder: Path
) -> None:
    program = watched()
    program.do("pid = os.fork(); pid or (client.close(0), server.close(0), os._exit(0)); os.wait()")
    assert len(list(run_folder.iterdir())) == 3
    assert len(program.found().pages) == 2
