"""The head of a request: parsed strictly, for what is let pass here may mean something else to a
program behind us (RFC 9112, sections 2.2 to 6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

END_OF_HEAD = b"\r\n\r\n"
#: Bytes of a request line and its header fields together.
MAX_HEAD = 16 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%s):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*" % _TOKEN)
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Malformed(Exception):
    """A request that is answered with an error and the end of its connection."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request."""

    method: str
    #: As it was sent: a path with a query, or a whole URL.
    target: str
    #: By lower-case name; fields that came several times are joined by commas.
    fields: dict[str, str]
    #: Whether the connection stays open after the answer.
    keep_alive: bool
    #: Bytes of the body, or None for one that comes in chunks.
    length: int | None
    #: Whether the client waits to be told to go on.
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.length is None or self.length > 0


def parse(head: bytes) -> Request:
    """Parse a head without the empty line at its end. Raises `Malformed`."""
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Malformed(400, "the request line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise Malformed(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed(400, "a header field is not NAME: VALUE")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        if name in ("host", "content-length") and fields.get(name, value) != value:
            raise Malformed(400, f"more than one {name}")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    modern = minor != b"0"
    if modern and "host" not in fields:
        raise Malformed(400, "HTTP/1.1 needs a Host field")
    options = {option.strip() for option in fields.get("connection", "").lower().split(",")}
    return Request(
        method=method.decode("ascii"),
        target=target.decode("latin-1"),
        fields=fields,
        keep_alive="close" not in options and (modern or "keep-alive" in options),
        length=_length(fields, modern),
        expects_continue=modern and fields.get("expect", "").lower() == "100-continue",
    )


def _length(fields: dict[str, str], modern: bool) -> int | None:
    coding = fields.get("transfer-encoding")
    length = fields.get("content-length")
    if coding is not None:
        # Either could be believed by someone: this is how requests are smuggled.
        if length is not None or not modern:
            raise Malformed(400, "Transfer-Encoding where the length is told otherwise")
        if coding.lower() != "chunked":
            raise Malformed(501, "no transfer coding but chunked is understood")
        return None
    if length is None:
        return 0
    # The same number may stand there twice.
    numbers = {number.strip() for number in length.split(",")}
    if len(numbers) != 1 or not _LENGTH.fullmatch(number := numbers.pop().encode("latin-1")):
        raise Malformed(400, "Content-Length is not a number")
    return int(number)
