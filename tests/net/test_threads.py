"""Channels and threads: whose a channel is, who may wake it, who runs while it waits."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from millrace.net import CLOSED, CONNECTED, FINISHED, READ, WRITTEN, Channel

SERVER = "192.0.2.2"
WAITS = ["sleep", "spin", 100.0]


def in_thread(function: Callable[[], Any], name: str) -> Any:
    """What a function gives or raises in a thread of its own."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    return outcome[0]


def test_another_thread_is_told_whose_it_is(pair: Any) -> None:
    client, _ = pair.connect()
    channel = pair.client
    for use in (
        lambda: channel.turn(0),
        lambda: channel.listen(1),
        lambda: channel.close(),
        lambda: channel.counters(),
        lambda: channel.closed,
        lambda: next(channel),
        lambda: client.write(b"x"),
        lambda: client.close(),
        lambda: client.info(),
        lambda: client.closed,
    ):
        error = in_thread(use, "intruder")
        assert type(error) is RuntimeError
        assert "MainThread" in str(error)
        assert "intruder" in str(error)
    assert "MainThread" in in_thread(lambda: repr(channel), "intruder")
    assert not client.closed


@pytest.mark.parametrize("wait", WAITS)
def test_another_thread_may_wake_it(wire_name: str, wait: Any) -> None:
    with Channel(wire_name, "192.0.2.1/24", wait=wait, frames=512) as channel:
        for _ in range(50):
            thread = threading.Thread(target=channel.wake)
            thread.start()
            assert channel.turn() == []
            thread.join()


@pytest.mark.parametrize("wait", WAITS)
def test_other_threads_run_while_it_waits(wire_name: str, wait: Any) -> None:
    progress: list[int] = []
    with Channel(wire_name, "192.0.2.1/24", wait=wait, frames=512) as channel:

        def work() -> None:
            for number in range(1000):
                progress.append(number)
                time.sleep(0)
            channel.wake()

        thread = threading.Thread(target=work)
        thread.start()
        assert channel.turn() == []
        assert len(progress) == 1000
        thread.join()


@pytest.mark.parametrize("wait", ["sleep", 100.0])
def test_two_threads_move_much_both_ways(wire_name: str, wait: Any) -> None:
    up, down = os.urandom(8_000_000), os.urandom(8_000_000)
    options: dict[str, Any] = {"wait": wait, "frames": 8192}
    ready = threading.Event()

    def serve() -> str:
        hashed = hashlib.sha256()
        with Channel(wire_name, f"{SERVER}/24", **options) as channel:
            channel.listen(80)
            ready.set()
            for batch in channel:
                for done in batch:
                    if done.kind is READ:
                        hashed.update(done)
                    elif done.kind is FINISHED:
                        done.handle.write(down)
                        done.handle.close()
                        channel.close(30.0)
        return hashed.hexdigest()

    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(serve()))
    thread.start()
    ready.wait()
    got = hashlib.sha256()
    with Channel(wire_name, "192.0.2.1/24", **options) as channel:
        handle = channel.connect((SERVER, 80))
        finished = False
        while not finished:
            for done in channel.turn() or []:
                if done.kind is CONNECTED:
                    handle.write(up)
                    handle.shutdown()
                elif done.kind is READ:
                    got.update(done)
                else:
                    assert done.kind in (WRITTEN, FINISHED, CLOSED), done
                    assert done.error is None
                    finished |= done.kind is FINISHED
        handle.close()
    thread.join()
    assert outcome == [hashlib.sha256(up).hexdigest()]
    assert got.hexdigest() == hashlib.sha256(down).hexdigest()


WAITER = """
import sys, millrace
wait = sys.argv[1] if sys.argv[1].isalpha() else float(sys.argv[1])
with millrace.Channel("memory:waiter", "192.0.2.1/24", wait=wait, frames=512) as channel:
    try:
        print("ready", flush=True)
        for batch in channel:
            print("batch", batch, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("wait", ["sleep", "spin", "100"])
def test_ctrl_c_ends_a_wait(program: Callable[..., subprocess.Popen[str]], wait: str) -> None:
    process = program(WAITER, wait)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert process.wait() == 0


HANDLER = """
import signal, millrace
with millrace.Channel("memory:waiter", "192.0.2.1/24", frames=512) as channel:
    signal.signal(signal.SIGUSR1, lambda *_: channel.wake())
    signal.signal(signal.SIGUSR2, lambda *_: channel.close(0))
    print("ready", flush=True)
    for batch in channel:
        print("batch", batch, flush=True)
    print("closed", flush=True)
"""


def test_a_signal_handler_may_wake_and_close(
    program: Callable[..., subprocess.Popen[str]],
) -> None:
    process = program(HANDLER)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "batch []\n"
    process.send_signal(signal.SIGUSR2)
    while (line := process.stdout.readline()) == "batch []\n":
        pass
    assert line == "closed\n"
    assert process.wait() == 0


def test_a_finalizer_that_uses_a_busy_channel_is_refused(pair: Any) -> None:
    """Nothing of a channel waits for itself, whatever runs in the middle of a call."""
    client, server = pair.connect()
    errors: list[BaseException] = []

    class Meddler:
        def __del__(self) -> None:
            try:
                client.write(b"from a finalizer")
                pair.client.turn(0)
            except BaseException as error:
                errors.append(error)

    server.state = Meddler()
    server.close()
    server.state = None
    assert not errors
