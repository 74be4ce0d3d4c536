"""Clients on Linux's own TCP against servers on ours, on every kind of port."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Host, Lab, Wire
from millrace.net import CLOSED, READ, Channel

pytestmark = pytest.mark.networks

CLIENT, SERVER = "192.0.2.1", "192.0.2.2"
URL = f"http://{SERVER}/"
KINDS = ["af_xdp", "af_packet", "tap"]


@dataclass
class Site:
    """A server of ours, and a host to reach it from."""

    client: Host
    process: subprocess.Popen[str]

    def curl(self, *arguments: str, timeout: float = 60.0) -> str:
        """What curl writes; a failure of its own is an exception."""
        command = ["curl", "--silent", "--show-error", "--fail-with-body", *arguments]
        return self.client.run(command, timeout=timeout).stdout


@pytest.fixture
def serve(lab: Lab) -> Iterator[Callable[..., Site]]:
    """Starts `millrace serve` on a kind of port."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, program: str, *options: str) -> Site:
        server = lab.host("server")
        if kind == "tap":
            client, name = server, "mill0"
        else:
            client = lab.host("client")
            wire = lab.wire(client, server, addresses=(f"{CLIENT}/24", None))
            name = wire.b.name
        command = [sys.executable, "-m", "millrace", "serve", program]
        command += ["--port", f"{kind}:{name}", "--address", f"{SERVER}/24", *options]
        process = server.popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        assert f"on {kind}:{name}" in (line := process.stderr.readline()), line
        if kind == "tap":
            with server.netlink() as netlink:
                index = netlink.link_lookup(ifname=name)[0]
                netlink.addr("add", index=index, address=CLIENT, prefixlen=24)
        return Site(client, process)

    yield start
    for process in started:
        process.terminate()
        _, errors = process.communicate()
        assert not errors, errors


def require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")


@pytest.mark.parametrize("kind", KINDS)
def test_ping(serve: Callable[..., Site], kind: str) -> None:
    require("ping")
    site = serve(kind, "http")
    for size in ("0", "56", "1472"):
        ping = ["ping", "-c", "3", "-i", "0.01", "-W", "5", "-s", size, SERVER]
        assert "3 received" in site.client.run(ping).stdout


@pytest.mark.parametrize("kind", KINDS)
def test_curl(serve: Callable[..., Site], kind: str, tmp_path: Path) -> None:
    require("curl")
    (tmp_path / "hello").write_text("from a file")
    data = os.urandom(3_000_000)
    (tmp_path / "up").write_bytes(data)
    site = serve(kind, "http", "--root", str(tmp_path))
    assert site.curl(URL + "hello") == "from a file"
    assert "Content-Length: 11" in site.curl("--head", URL + "hello")
    # Several over one connection.
    assert site.curl(URL + "hello", URL + "hello", URL + "hello") == "from a file" * 3
    wanted = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    upload = ["--upload-file", str(tmp_path / "up"), URL]
    assert json.loads(site.curl(*upload)) == wanted
    assert json.loads(site.curl("--header", "Transfer-Encoding: chunked", *upload)) == wanted


URLLIB = """
import hashlib, sys, urllib.request, urllib.error
with urllib.request.urlopen(sys.argv[1] + "x", timeout=30) as answer:
    print(answer.status, len(answer.read()))
request = urllib.request.Request(sys.argv[1], data=b"mill" * 100_000, method="POST")
with urllib.request.urlopen(request, timeout=30) as answer:
    print(hashlib.sha256(b"mill" * 100_000).hexdigest() in answer.read().decode())
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="DELETE"), timeout=30)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_urllib(serve: Callable[..., Site], kind: str) -> None:
    site = serve(kind, "http", "--body", "70000")
    result = site.client.run([sys.executable, "-c", URLLIB, URL])
    assert result.stdout.split() == ["200", "70000", "True", "405"]


@pytest.mark.parametrize("kind", KINDS)
def test_wrk(serve: Callable[..., Site], kind: str) -> None:
    require("wrk")
    site = serve(kind, "http")
    wrk = ["wrk", "--threads", "1", "--connections", "64", "--duration", "1s"]
    for options in ([], ["--header", "Connection: close"]):
        shown = site.client.run([*wrk, *options, URL]).stdout
        assert "requests in" in shown
        assert "Socket errors" not in shown
        assert "Non-2xx" not in shown


@pytest.mark.parametrize("wait", ["sleep", "spin", "100"])
def test_every_way_of_waiting(serve: Callable[..., Site], wait: str) -> None:
    require("curl")
    site = serve("af_xdp", "http", "--wait", wait)
    for _ in range(3):
        assert len(site.curl(URL)) == 1024
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gibibyte_each_way(serve: Callable[..., Site], kind: str, tmp_path: Path) -> None:
    require("curl")
    path, size = tmp_path / "gibibyte", 1 << 30
    hashed, noise = hashlib.sha256(), os.urandom(1 << 24)
    with path.open("wb") as file:
        for number in range(size >> 24):
            # No two blocks are alike, so none may take another's place.
            block = noise[number:] + number.to_bytes(number)
            hashed.update(block)
            file.write(block)
    site = serve(kind, "http", "--root", str(tmp_path))
    report = json.loads(site.curl("--upload-file", str(path), URL, timeout=300))
    assert report == {"bytes": size, "sha256": hashed.hexdigest()}
    pipe = f"curl --silent --show-error --fail {URL}gibibyte | sha256sum"
    got = site.client.run(["sh", "-c", pipe], timeout=300).stdout
    assert got.split()[0] == hashed.hexdigest()
    path.unlink()


MANY = """
import resource, selectors, socket, sys
count = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
request = b"GET / HTTP/1.1\\r\\nHost: mill\\r\\n\\r\\n"
sockets = []
for _ in range(count):
    one = socket.create_connection((sys.argv[1], 80), timeout=60)
    sockets.append(one)
print("open", flush=True)
sys.stdin.readline()
for one in sockets:
    one.sendall(request)
answered = 0
for one in sockets:
    got = b""
    while len(got) < 1024 or not got.endswith(b"m" * 1024):
        data = one.recv(65536)
        if not data:
            sys.exit("a connection was closed")
        got += data
    answered += got.startswith(b"HTTP/1.1 200 ")
print(answered, flush=True)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_connections(serve: Callable[..., Site], kind: str) -> None:
    count = 10_000
    site = serve(kind, "http", "--connections", str(count + 100))
    with site.client.popen(
        [sys.executable, "-c", MANY, SERVER, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as many:
        opened = many.stdout.readline()
        assert opened == "open\n", many.stderr.read()
        # All are open now; each of them asks.
        out, err = many.communicate("\n")
    assert out == f"{count}\n", err


@pytest.mark.parametrize("kind", KINDS)
def test_echo(serve: Callable[..., Site], kind: str) -> None:
    site = serve(kind, "echo")
    data = os.urandom(2_000_000)
    with site.client.enter():
        stream = socket.create_connection((SERVER, 7), timeout=30)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stream, datagrams:
        sender = threading.Thread(target=stream.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            got += stream.recv(1 << 20)
        sender.join()
        assert got == data
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == b""
        datagrams.settimeout(30)
        datagrams.sendto(b"mill", (SERVER, 7))
        assert datagrams.recvfrom(100) == (b"mill", (SERVER, 7))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_server_and_its_connections(
    serve: Callable[..., Site], number: int, status: int
) -> None:
    site = serve("af_xdp", "echo")
    with site.client.enter():
        stream = socket.create_connection((SERVER, 7), timeout=30)
    with stream:
        stream.sendall(b"x")
        assert stream.recv(1) == b"x"
        site.process.send_signal(number)
        assert site.process.wait(30) == status
        with pytest.raises(ConnectionResetError):
            stream.recv(1)


@pytest.fixture
def wire(lab: Lab) -> Wire:
    return lab.wire(lab.host("client"), lab.host("server"), addresses=(f"{CLIENT}/24", None))


@pytest.mark.parametrize("kind", ["af_xdp", "af_packet"])
@pytest.mark.parametrize("side", ["its end", "both ends"])
def test_a_peer_that_vanishes(wire: Wire, kind: str, side: str) -> None:
    hasty: dict[str, Any] = {
        "retries": 3,
        "initial_rto": 0.05,
        "min_rto": 0.02,
        "max_rto": 0.1,
        "frames": 4096,
    }
    with wire.b.host.enter():
        channel = Channel(f"{kind}:{wire.b.name}", f"{SERVER}/24", **hasty)
    with channel, wire.a.host.enter():
        channel.listen(80)
        with socket.socket() as peer:
            peer.setblocking(False)
            assert peer.connect_ex((SERVER, 80)) != 0
            handle = None
            while handle is None:
                for done in channel.turn() or []:
                    handle = done.handle
            peer.send(b"still here")
            while not any(done.kind is READ for done in channel.turn() or []):
                pass
            if side == "its end":
                wire.a.set_down()
            else:
                wire.set_down()
            handle.write(b"anybody?")
            end = None
            while end is None:
                for done in channel.turn() or []:
                    assert done.handle is handle
                    end = done if done.kind is CLOSED else None
            assert isinstance(end.error, TimeoutError)
            assert "did not answer" in str(end.error)
            counters = channel.counters()
            assert counters["connections_timed_out"] == 1
            # The channel has outlived it.
            wire.set_up()
            assert channel.turn(0.05) is not None
            if side == "both ends":
                assert counters["link_downs"] == 1


@pytest.mark.parametrize("kind", ["af_xdp", "af_packet"])
def test_linux_keeps_what_is_its_own(lab: Lab, kind: str) -> None:
    """Two addresses on one interface: ours is ours, and Linux's is Linux's."""
    require("ping")
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    ours = wire.address()
    command = [sys.executable, "-m", "millrace", "serve", "http"]
    command += ["--port", f"{kind}:{wire.b.name}", "--address", ours]
    with server.popen(command, stderr=subprocess.PIPE, text=True) as process:
        process.stderr.readline()
        with server.enter():
            listener = socket.create_server((wire.b.ip, 80))
        with listener, client.enter():
            for address in (wire.b.ip, ours.partition("/")[0]):
                client.run(["ping", "-c", "2", "-i", "0.01", "-W", "5", address])
            with socket.create_connection((wire.b.ip, 80), timeout=30) as stream:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.sendall(b"from Linux")
                    assert stream.recv(100) == b"from Linux"
            with socket.create_connection((ours.partition("/")[0], 80), timeout=30) as stream:
                stream.sendall(b"GET / HTTP/1.1\r\nHost: mill\r\n\r\n")
                assert stream.recv(100).startswith(b"HTTP/1.1 200 OK")
        process.terminate()


def test_load_on_our_own_stack(serve: Callable[..., Site], tmp_path: Path) -> None:
    """Both ends are ours, on a wire of Linux's."""
    site = serve("af_xdp", "http")
    interface = site.client.interfaces[0]
    command = [sys.executable, "-m", "millrace", "load", "http", URL, "--json", "-"]
    command += ["--port", f"af_packet:{interface.name}", "--address", "192.0.2.99/24"]
    for options in (["--connections", "8"], ["--connections", "4", "--rate", "500"]):
        result = site.client.run([*command, "--duration", "0.5", *options])
        [row] = json.loads(result.stdout)
        assert row["errors"] == 0
        assert row["requests"] > 100
        assert row["port"] == "af_packet"
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["max_us"]
        assert "requests per s" in result.stderr
    assert abs(row["requests"] - 250) < 30


def test_the_command_line_says_what_is_wrong(lab: Lab) -> None:
    host = lab.host("host")
    serve = [sys.executable, "-m", "millrace", "serve", "http"]
    for options, status, words in [
        (["--port", "af_xdp:nosuch0", "--address", "192.0.2.2/24"], 1, "nosuch0"),
        (["--port", "lo", "--address", "192.0.2.2"], 1, "192.0.2.2/24"),
        (["--port", "memory:x", "--address", "192.0.2.2/24", "--wait", "doze"], 1, "doze"),
        (["--port", "memory:x", "--address", "192.0.2.2/24", "--root", "/nosuch"], 1, "/nosuch"),
        (["--address", "192.0.2.2/24"], 2, "--port"),
    ]:
        result = host.run([*serve, *options], check=False)
        assert result.returncode == status
        assert words in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
