"""A small and honest HTTP/1.1 server (RFC 9110, RFC 9112) on a channel.

`Server(content).serve(channel)` answers until the channel is closed. What it serves is one of
`Fixed` (the same body for every path) and `Files` (a folder), or anything else that is a `Content`.
Bodies that clients send are hashed and thrown away (`Digest`).

Requests may come in pieces or many at a time, connections are kept or closed as the client asks,
and what is malformed is answered with 400, 431, 501 or 505 and the end of the connection.
"""

from __future__ import annotations

from millrace.apps.http.content import Content, Digest, Files, Fixed, Receiver, Response
from millrace.apps.http.request import Malformed, Request
from millrace.apps.http.server import PORT, Server

__all__ = [
    "PORT",
    "Content",
    "Digest",
    "Files",
    "Fixed",
    "Malformed",
    "Receiver",
    "Request",
    "Response",
    "Server",
]
