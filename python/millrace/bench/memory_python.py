"""Server and load as Python programs, a thread each, on two channels that memory joins."""

from __future__ import annotations

import os
import threading
import time

from millrace.bench.arms import BODY_BYTES, TCP_PORT, Scenario
from millrace.bench.figures import Sample
from millrace.net import CLOSED, CONNECTED, FINISHED, READ, Channel, Completion, Handle

_CLIENT = "192.0.2.1/24"
_SERVER = "192.0.2.2"
_LOOK_SECONDS = 0.02

_wires = iter(range(1 << 62))


def run(scenario: Scenario, seconds: float) -> Sample:
    """One run with a Python program at both ends."""
    wire = f"memory:demo-{os.getpid()}-{next(_wires)}"
    server = _Server(wire, scenario)
    server.start()
    try:
        load = _Load(wire, scenario)
        load.run(seconds)
    finally:
        server.stop()
    requests = len(load.latencies)
    if requests == 0:
        raise RuntimeError(f"millrace python answered no request, {scenario.title}")
    load.latencies.sort()
    server_us = server.seconds * 1e6 / requests
    return Sample(
        requests=requests,
        requests_per_s=requests / load.seconds,
        p50_us=round(load.latencies[requests // 2] * 1e6, 3),
        p99_us=round(load.latencies[requests * 99 // 100] * 1e6, 3),
        server_core_us=server_us,
        errors=load.errors,
        server_process_us=server_us,
    )


def _answer(close: bool) -> bytes:
    body = bytes(ord("a") + at % 26 for at in range(BODY_BYTES))
    fields = "Connection: close\r\n" if close else ""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n{fields}\r\n".encode() + body


class _Server:
    """Answers each request in a thread of its own."""

    def __init__(self, wire: str, scenario: Scenario) -> None:
        self._wire = wire
        self._scenario = scenario
        self._end = threading.Event()
        self._open = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="millrace-demo-server")
        #: Processor time of the thread, once it has ended.
        self.seconds = 0.0

    def start(self) -> None:
        self._thread.start()
        self._open.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._serve()
            self.seconds = time.thread_time()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._open.set()

    def _serve(self) -> None:
        keepalive = self._scenario.keepalive
        answer = _answer(close=not keepalive)
        end = self._end
        with Channel(self._wire, f"{_SERVER}/24", wait=self._scenario.wait) as channel:
            channel.listen(TCP_PORT)
            self._open.set()
            while not end.is_set():
                for done in channel.turn(_LOOK_SECONDS) or ():
                    if done.kind is READ:
                        handle = done.handle
                        # The load sends whole requests, each in one segment.
                        handle.write(answer)
                        if not keepalive:
                            handle.close()
                    elif done.kind is FINISHED:
                        done.handle.close()


class _Load:
    """A closed loop: one request at a time on each connection."""

    def __init__(self, wire: str, scenario: Scenario) -> None:
        closing = "" if scenario.keepalive else "Connection: close\r\n"
        self._wire = wire
        self._scenario = scenario
        self._request = f"GET / HTTP/1.1\r\nHost: {_SERVER}\r\n{closing}\r\n".encode()
        self._answer = len(_answer(close=not scenario.keepalive))
        self.latencies: list[float] = []
        self.errors = 0
        self.seconds = 0.0

    def run(self, seconds: float) -> None:
        with Channel(self._wire, _CLIENT, wait=self._scenario.wait) as channel:
            start = time.perf_counter()
            for _ in range(self._scenario.connections):
                channel.connect((_SERVER, TCP_PORT))
            while time.perf_counter() - start < seconds:
                for done in channel.turn(_LOOK_SECONDS) or ():
                    self._act(channel, done)
            self.seconds = time.perf_counter() - start

    def _act(self, channel: Channel, done: Completion) -> None:
        kind, handle = done.kind, done.handle
        if kind is READ:
            asked, missing = handle.state
            missing -= len(done)
            if missing > 0:
                handle.state = asked, missing
                return
            self.errors += missing < 0
            self.latencies.append(time.perf_counter() - asked)
            if self._scenario.keepalive:
                self._ask(handle)
        elif kind is CONNECTED:
            self._ask(handle)
        elif kind is FINISHED:
            handle.close()
            self.errors += self._scenario.keepalive
            channel.connect((_SERVER, TCP_PORT))
        elif kind is CLOSED:
            self.errors += 1
            channel.connect((_SERVER, TCP_PORT))

    def _ask(self, handle: Handle) -> None:
        handle.state = time.perf_counter(), self._answer
        handle.write(self._request)
