"""Requests through the socket, and hostile ends on both sides of it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.watch import client
from millrace.watch.client import RequestError
from millrace.watch.processes import Process


def test_a_table_comes_whole(watched: Callable[..., Any]) -> None:
    found = watched().found()
    (row,) = client.rows(found, 1, "connections")
    assert row["local"] == ("192.0.2.2", 80)
    assert row["tcpi_state"] == 1
    assert row["congestion_control"] == "cubic"
    assert [row["backlog"] for row in client.rows(found, 1, "listeners")] == [7]


def test_many_connections_come_in_parts(watched: Callable[..., Any]) -> None:
    program = watched()
    program.do("more = [client.connect(('192.0.2.2', 80)) for _ in range(300)]")
    found = program.found()
    every = client.rows(found, 0, "connections")
    assert every.total == len(every.rows) == 301
    assert len({row["local"] for row in every}) == 301


def test_what_is_not_there_is_said(watched: Callable[..., Any]) -> None:
    found = watched().found()
    with pytest.raises(RequestError, match="no table nosuch"):
        client.rows(found, 0, "nosuch")
    with pytest.raises(RequestError, match="no page 9"):
        client.rows(found, 9, "routes")


def test_a_channel_whose_thread_is_busy_elsewhere_is_named(watched: Callable[..., Any]) -> None:
    program = watched()
    found = program.found()
    # It waits for a line that does not come, between two turns.
    program.process.stdin.write("print('busy', flush=True); os.read(0, 1)\n")
    program.process.stdin.flush()
    program.expect("busy")
    with pytest.raises(RequestError, match="did not turn for 2 s"):
        client.rows(found, 0, "connections")
    # The page is there all the same.
    assert program.found().pages[0].values


def talk(found: Process, data: bytes) -> bytes:
    """What the process answers to these bytes, until it closes."""
    assert found.socket is not None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(found.socket))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"reboot\n", b"no request"),
        (b"\xff\xfe\n", b"UTF-8"),
        (b"table 99999999999 x\n", b"no number of a page"),
        (b"dump 0 snap=-1\n", b"snap is 1 to"),
        (b"dump\n", b"no number of a page"),
        (b"x" * 100_000, b"more than 65536 bytes"),
    ],
)
def test_hostile_requests_are_refused(watched: Callable[..., Any], data: bytes, why: bytes) -> None:
    program = watched()
    found = program.found()
    answer = talk(found, data)
    assert answer.startswith(b"error ")
    assert why in answer
    assert client.rows(found, 0, "routes").rows


def test_clients_that_say_nothing_hold_up_nobody_and_are_bounded(
    watched: Callable[..., Any],
) -> None:
    found = watched().found()
    assert found.socket is not None
    silent = []
    for _ in range(16):
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(found.socket))
        silent.append(one)
    assert b"16 others" in talk(found, b"table 0 routes\n")
    # Each is sent away after a while, and says so.
    for one in silent:
        one.settimeout(30)
        assert b"takes too long" in one.recv(1000)
        one.close()
    assert client.rows(found, 0, "routes").rows


@pytest.mark.networks
def test_another_user_is_sent_away(watched: Callable[..., Any], run_folder: Path) -> None:
    found = watched().found()
    assert found.socket is not None
    # As if the folder and the socket had been opened to all by mistake.
    for path in (run_folder, *run_folder.parents):
        if os.access(path, os.W_OK) and path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o755)
    found.socket.chmod(0o777)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            status = 0 if b"user 65534 may not watch" in talk(found, b"table 0 routes\n") else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@contextlib.contextmanager
def liar(folder: Path, answer: bytes) -> Iterator[Process]:
    """A process that answers every request with these bytes and then says nothing more."""
    path = folder / "liar.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    end = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(answer)
            end.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Process(1, 0, "liar", (), path)
    finally:
        end.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"yes\n", "no answer of Millrace"),
        (b"x" * 10_000, "a line of more than"),
        (b"ok\n\xfe\xff\xff\xff", "cut off"),
        (b"ok\n\x03\0\0\0abc", "cut"),
        (b"ok\n\0\0\0\0", "without a table"),
        (b"ok\n\xff\xff\xff\xff\x04\0\0\0oops", "oops"),
        (b"error no\x1b[31m\n", r"no\?\[31m"),
    ],
)
def test_a_lying_process_is_an_error(tmp_path: Path, answer: bytes, why: str) -> None:
    with liar(tmp_path, answer) as found, pytest.raises(RequestError, match=why):
        client.rows(found, 0, "routes")


def test_a_process_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    for answer in (b"", b"ok", b"ok\n\x10\0\0\0abc"):
        (tmp_path / "liar.sock").unlink(missing_ok=True)
        with liar(tmp_path, answer) as found, pytest.raises(RequestError, match="takes more than"):
            client.rows(found, 0, "routes")


def test_a_process_without_a_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no socket"):
        client.rows(Process(1, 0, "x", (), None), 0, "routes")
    with pytest.raises(RequestError, match="does not answer"):
        client.rows(Process(1, 0, "x", (), tmp_path / "nothing"), 0, "routes")
