"""The HTTP server over a wire in memory."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.apps.http import Content, Files, Fixed, Server
from millrace.net import CLOSED, FINISHED, Channel

BODY = b"the miller's daughter " * 40
GET = b"GET /x HTTP/1.1\r\nHost: mill\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: mill\r\nConnection: close\r\n\r\n"


def split(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    found = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark, data
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        length = int(fields.get("content-length", 0))
        found.append((int(first.split(" ")[1]), fields, data[:length]))
        data = data[length:]
    return found


@pytest.fixture
def fixed(browse: Callable[..., Any]) -> Any:
    return browse(functools.partial(Server.serve, Server(Fixed(BODY))))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "hello.txt").write_text("hello")
    (folder / "empty").write_bytes(b"")
    (folder / "sub" / "index.html").write_text("<p>index</p>")
    (folder / "large.bin").write_bytes(os.urandom(5_000_000))
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner").symlink_to(folder / "hello.txt")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def files(browse: Callable[..., Any], root: Path) -> Any:
    return browse(functools.partial(Server.serve, Server(Files(root))))


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: mill\r\nConnection: close\r\n\r\n".encode()


def test_one_request(fixed: Any) -> None:
    [(status, fields, body)] = split(fixed.ask(GET, answers=1))
    assert (status, body) == (200, BODY)
    assert fields["content-length"] == str(len(BODY))
    assert "connection" not in fields


def test_the_same_request_again_and_again(fixed: Any) -> None:
    """The first is parsed, the others are known."""
    for _ in range(5):
        assert [answer[2] for answer in split(fixed.ask(GET, answers=1))] == [BODY]
        [(status, fields, body)] = split(fixed.ask(LAST))
        assert (status, body, fields["connection"]) == (200, BODY, "close")


def test_many_requests_in_one_segment(fixed: Any) -> None:
    answers = split(fixed.ask(GET * 10 + LAST))
    assert [answer[0] for answer in answers] == [200] * 11
    # What comes behind the last is not answered.
    assert len(split(fixed.ask(GET + LAST + GET))) == 2


def test_a_request_in_pieces_of_any_size(fixed: Any) -> None:
    for size in (1, 2, 7):
        pieces = [LAST[at : at + size] for at in range(0, len(LAST), size)]
        assert [answer[2] for answer in split(fixed.ask(*pieces))] == [BODY]
    # A whole request and a part of the next, when the first is known already.
    assert len(split(fixed.ask(GET, answers=1))) == 1
    assert len(split(fixed.ask(GET + LAST[:9], LAST[9:]))) == 2


def test_an_empty_line_before_a_request_is_let_pass(fixed: Any) -> None:
    assert len(split(fixed.ask(b"\r\n\r\n" + GET + b"\r\n" + LAST))) == 2


def test_a_head_alone_is_asked_for(fixed: Any) -> None:
    head = b"HEAD / HTTP/1.1\r\nHost: m\r\n\r\n"
    for _ in range(2):
        data = fixed.ask(head + LAST)
        first, _, rest = data.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(BODY)}".encode() in first
        assert [answer[2] for answer in split(rest)] == [BODY]


def test_old_clients(fixed: Any) -> None:
    [(status, fields, body)] = split(fixed.ask(b"GET / HTTP/1.0\r\n\r\n"))
    assert (status, body, fields["connection"]) == (200, BODY, "close")
    kept = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert len(split(fixed.ask(kept + kept, answers=2))) == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: m\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: m\r\nX: " + b"x" * 20_000, 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: m\r\n\r\n", 431),
        (b"DELETE / HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n", 405),
        (b"PATCH / HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_malformed_is_refused_and_nobody_else_minds(
    fixed: Any, request_bytes: bytes, status: int
) -> None:
    bystander = fixed.connect()
    answers = split(fixed.ask(GET + request_bytes + GET))
    assert [answer[0] for answer in answers] == [200, status]
    assert answers[1][1]["connection"] == "close"
    assert f"{status} " in answers[1][2].decode()
    bystander.write(GET)
    while not any(done.handle is bystander for done in fixed.turn()):
        pass


def test_who_is_refused_and_goes_on_is_cut_off(fixed: Any) -> None:
    handle = fixed.connect()
    handle.write(b"nonsense\r\n\r\n" + bytes(5_000_000))
    ends = []
    while CLOSED not in ends:
        ends += [done.kind for done in fixed.turn() if done.handle is handle]
    assert FINISHED in ends


@pytest.mark.parametrize("size", [0, 1, 3000, 3_000_000])
def test_uploads_are_hashed(fixed: Any, size: int) -> None:
    data = os.urandom(size)
    wanted = {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
    head = f"PUT /up HTTP/1.1\r\nHost: m\r\nContent-Length: {size}\r\n\r\n".encode()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(data[at : at + 70_000]), data[at : at + 70_000])
        for at in range(0, size, 70_000)
    )
    chunked = b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"
    for request in (head + data, chunked + chunks + b"0\r\n\r\n"):
        answers = split(fixed.ask(request + LAST))
        assert [answer[0] for answer in answers] == [200, 200]
        assert json.loads(answers[0][2]) == wanted
        assert answers[1][2] == BODY


def test_a_client_that_waits_is_told_to_go_on(fixed: Any) -> None:
    handle = fixed.connect()
    handle.write(b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    got = b""
    while got != b"HTTP/1.1 100 Continue\r\n\r\n":
        got += b"".join(done.tobytes() for done in fixed.turn())
    handle.write(b"mill")
    got = b""
    while hashlib.sha256(b"mill").hexdigest().encode() not in got:
        got += b"".join(done.tobytes() for done in fixed.turn())


def test_a_client_that_does_not_read_is_held_back(browse: Callable[..., Any]) -> None:
    browser = browse(
        functools.partial(Server.serve, Server(Fixed(b"x" * 2000))),
        send_buffer=65_536,
        send_buffer_max=65_536,
        receive_buffer=65_536,
        receive_buffer_max=65_536,
        write_queue=65_536,
    )
    answer = len(browser.ask(GET, answers=1))
    handle = browser.connect()
    handle.pause()
    count = 20_000
    sent = 0
    for _ in range(200):
        while sent < count and not handle.waiting:
            handle.write(GET)
            sent += 1
        browser.channel.turn(0.001)
    assert sent < count
    handle.resume()
    length = 0
    while length < count * answer:
        while sent < count and not handle.waiting:
            handle.write(GET)
            sent += 1
        length += sum(len(done) for done in browser.turn() if done.handle is handle)
    assert length == count * answer


def test_clients_that_vanish_in_the_middle(fixed: Any) -> None:
    for request in (GET[:10], b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: 99\r\n\r\nabc", GET):
        handle = fixed.connect()
        handle.write(request)
        fixed.channel.turn(0)
        handle.abort()
        closing = fixed.connect()
        closing.write(request)
        closing.close()
    assert len(split(fixed.ask(LAST))) == 1


def test_a_client_that_has_said_all_is_still_answered(fixed: Any) -> None:
    handle = fixed.connect()
    handle.write(GET * 3)
    handle.shutdown()
    got, ended = b"", False
    while not ended:
        for done in fixed.turn():
            got += done.tobytes()
            ended |= done.kind is FINISHED
    assert len(split(got)) == 3


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/hello.txt", 200, b"hello"),
        ("/hello.txt?query=1", 200, b"hello"),
        ("/%68ello.txt", 200, b"hello"),
        ("http://mill/hello.txt", 200, b"hello"),
        ("/sub/../hello.txt", 200, b"hello"),
        ("/inner", 200, b"hello"),
        ("/empty", 200, b""),
        ("/sub/", 200, b"<p>index</p>"),
        ("/sub", 404, None),
        ("/nosuch", 404, None),
        ("/hello.txt/more", 404, None),
        ("/../secret", 404, None),
        ("/%2e%2e/secret", 404, None),
        ("/..%2fsecret", 404, None),
        ("//secret", 404, None),
        ("/link", 404, None),
        ("/pipe", 404, None),
        ("/a%00b", 404, None),
        ("/" + "x" * 5000, 404, None),
        ("*", 404, None),
    ],
)
def test_files(files: Any, path: str, status: int, body: bytes | None) -> None:
    [(got, _, got_body)] = split(files.ask(get(path)))
    assert got == status
    if body is not None:
        assert got_body == body


def test_files_have_types(files: Any) -> None:
    assert split(files.ask(get("/hello.txt")))[0][1]["content-type"] == "text/plain"
    assert split(files.ask(get("/sub/")))[0][1]["content-type"] == "text/html"
    large = split(files.ask(get("/large.bin")))[0][1]
    assert large["content-type"] == "application/octet-stream"


def test_large_files_with_others_behind_them(files: Any, root: Path) -> None:
    large = (root / "large.bin").read_bytes()
    request = b"GET /large.bin HTTP/1.1\r\nHost: m\r\n\r\n"
    answers = split(files.ask(request * 2 + get("/hello.txt")))
    assert [answer[2] for answer in answers] == [large, large, b"hello"]
    head = b"HEAD /large.bin HTTP/1.1\r\nHost: m\r\n\r\n"
    first, _, rest = files.ask(head + get("/hello.txt")).partition(b"\r\n\r\n")
    assert b"Content-Length: 5000000" in first
    assert [answer[2] for answer in split(rest)] == [b"hello"]


def test_a_file_that_shrinks_is_an_error_and_not_a_short_answer(files: Any, root: Path) -> None:
    handle = files.connect()
    handle.pause()
    handle.write(get("/large.bin"))
    for _ in range(20):
        files.channel.turn(0.005)
    os.truncate(root / "large.bin", 1000)
    handle.resume()
    error, length = None, 0
    while error is None:
        for done in files.turn():
            length += len(done)
            error = done.error
    assert isinstance(error, ConnectionResetError)
    assert length < 5_000_000


def open_files(root: Path) -> list[str]:
    """The files of a folder that this process has open."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return [name for name in found if name.startswith(str(root))]


def test_descriptors_of_files_come_back(files: Any, root: Path) -> None:
    most = 0
    for _ in range(20):
        handle = files.connect()
        handle.pause()
        handle.write(get("/large.bin"))
        for _ in range(5):
            files.channel.turn(0.002)
        most = max(most, len(open_files(root)))
        handle.abort()
        files.ask(get("/large.bin", "HEAD"))
    assert most > 0
    files.ask(get("/hello.txt"))
    assert open_files(root) == []


def test_a_folder_that_is_none() -> None:
    with pytest.raises(FileNotFoundError):
        Files("/nosuch")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        Files("/dev/null")


def test_too_many_different_requests_are_not_remembered_for_ever() -> None:
    server = Server(Fixed(b"x"))
    for number in range(5000):
        server.remember(b"%d" % number, b"answer", keep_alive=True)
    server.remember(bytes(2000), b"answer", keep_alive=True)
    assert len(server._known) <= 1024
    assert bytes(2000) not in server._known


def test_content_that_fails_ends_its_own_connection_alone(browse: Callable[..., Any]) -> None:
    class Failing(Fixed):
        def answer(self, request: Any) -> Any:
            if request.target == "/fail":
                raise OSError("the disk is gone")
            return super().answer(request)

    content: Content = Failing(BODY)

    def serve(channel: Channel) -> None:
        Server(content).serve(channel)

    browser = browse(serve)
    assert browser.ask(get("/fail")) == b""
    assert len(split(browser.ask(LAST))) == 1
