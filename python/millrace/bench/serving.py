"""Start a server, wait until it answers rightly, stop it."""

from __future__ import annotations

import contextlib
import http.client
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from millrace.bench.arms import BODY_BYTES, TCP_PORT
from millrace.lab import Host, LabError

START_SECONDS = 10.0
STOP_SECONDS = 5.0
_TRY_SECONDS = 0.25


@contextlib.contextmanager
def serving(
    command: list[str], *, server: Host, client: Host, ip: str, core: int | None
) -> Iterator[subprocess.Popen[Any]]:
    """Serve on `server` for the length of a `with`, once `client` has had a right answer."""
    with tempfile.TemporaryFile() as log:
        process = server.popen(command, core=core, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(process, log, client, ip)
            yield process
            if process.poll() is not None:
                raise _ended(process, log)
        finally:
            stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and kill it if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_with_curl(client: Host, ip: str) -> None:
    """A second opinion on the answer, from a client that is not ours."""
    url = f"http://{ip}:{TCP_PORT}/"
    form = "%{http_code} %{size_download}"
    # wrk's server side is busy with nothing yet; five seconds are many.
    args = ["curl", "-sS", "-o", "/dev/null", "--max-time", "5", "-w", form, url]
    said = client.run(args).stdout.strip()
    if said != f"200 {BODY_BYTES}":
        raise LabError(f"curl {url} got status and length {said}, not 200 {BODY_BYTES}")


def _wait_until_it_answers(
    process: subprocess.Popen[Any], log: IO[bytes], client: Host, ip: str
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with client.enter():
                connection = http.client.HTTPConnection(ip, TCP_PORT, timeout=_TRY_SECONDS)
                with contextlib.closing(connection):
                    connection.request("GET", "/", headers={"Connection": "close"})
                    answer = connection.getresponse()
                    status, body = answer.status, answer.read()
            break
        except (OSError, http.client.HTTPException) as error:
            if process.poll() is not None:
                raise _ended(process, log) from None
            if time.monotonic() > deadline:
                said = _said(log)
                raise LabError(
                    f"{_name(process)} does not answer at {ip}:{TCP_PORT} after "
                    f"{START_SECONDS:.0f} s ({error}){said}"
                ) from None
            time.sleep(0.02)
    if status != 200 or len(body) != BODY_BYTES:
        raise LabError(
            f"{_name(process)} answers with status {status} and {len(body)} bytes, "
            f"not 200 and {BODY_BYTES}"
        )


def _ended(process: subprocess.Popen[Any], log: IO[bytes]) -> LabError:
    return LabError(f"{_name(process)} ended with status {process.returncode}{_said(log)}")


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    text = log.read().decode(errors="replace").strip()
    return f": {text[-2000:]}" if text else ""


def _name(process: subprocess.Popen[Any]) -> str:
    words = [str(word) for word in process.args]  # type: ignore[union-attr]
    words[0] = Path(words[0]).name
    return shlex.join(words)
