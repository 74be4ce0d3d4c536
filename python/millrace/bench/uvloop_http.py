"""The arm `uvloop`: HTTP from one asyncio.Protocol on uvloop, on the kernel's TCP.

python -m millrace.bench.uvloop_http ADDRESS PORT BODY

The quickest that Python does today without bypassing the kernel: no streams, no framework, one
`data_received` and one `write` for a request. As in `millrace.apps.http`, a request of the same
bytes as an earlier one gets the same answer without being parsed again.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from typing import cast

import uvloop

MAX_HEAD = 8192
REMEMBERED = 1024

_END = b"\r\n\r\n"
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*\bclose\b", re.IGNORECASE)


def answer(status: str, body: bytes, fields: str = "") -> bytes:
    """An answer as it goes on the wire."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"{fields}\r\n"
    )
    return head.encode() + body


class Answers:
    """What is answered, shared by all connections."""

    def __init__(self, keep: bytes, close: bytes) -> None:
        self.keep = keep
        self.close = close
        #: Whole requests after which the connection stays, with their answer.
        self.known: dict[bytes, bytes] = {}

    def remember(self, request: bytes) -> None:
        if len(self.known) >= REMEMBERED:
            self.known.clear()
        self.known[request] = self.keep


class Http(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_answers", "_known", "_partial", "_transport")

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._known = answers.known
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        elif (answer := self._known.get(data)) is not None:
            self._transport.write(answer)
            return
        # Most often the bytes are one request and nothing else.
        end = data.find(_END)
        if end >= 0 and end + len(_END) == len(data):
            self._answer(data)
            return
        *heads, self._partial = data.split(_END)
        for head in heads:
            if self._transport.is_closing():
                return
            self._answer(head + _END)
        if len(self._partial) > MAX_HEAD:
            self._refuse("431 Request Header Fields Too Large")

    def _answer(self, head: bytes) -> None:
        if not head.startswith(b"GET "):
            self._refuse("405 Method Not Allowed")
        elif _CLOSE.search(head) is None:
            self._transport.write(self._answers.keep)
            self._answers.remember(head)
        else:
            self._transport.write(self._answers.close)
            self._transport.close()

    def _refuse(self, status: str) -> None:
        self._transport.write(answer(status, b"", "Connection: close\r\n"))
        self._transport.close()


async def serve(address: str, port: int, size: int) -> None:
    """Serve bodies of `size` bytes until cancelled."""
    body = bytes(ord("a") + at % 26 for at in range(size))
    answers = Answers(
        keep=answer("200 OK", body), close=answer("200 OK", body, "Connection: close\r\n")
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http(answers), address, port, backlog=4096)
    # What has been imported lives for ever; the collector need not look at it again.
    gc.freeze()
    async with server:
        await server.serve_forever()


def main() -> None:
    address, port, size = sys.argv[1:]
    uvloop.run(serve(address, int(port), int(size)))


if __name__ == "__main__":
    main()
