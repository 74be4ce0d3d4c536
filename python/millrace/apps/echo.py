"""Echo (RFC 862): what comes in goes out, over TCP and UDP."""

from __future__ import annotations

import contextlib

from millrace.net import DATAGRAM, FINISHED, READ, WRITTEN, Channel

PORT = 7


def serve(channel: Channel, port: int = PORT) -> None:
    """Echo on `port` until the channel is closed.

    A peer that sends and does not read is held back: its connection is paused while bytes wait.
    """
    channel.listen(port)
    channel.datagram(port)
    for batch in channel:
        for done in batch:
            kind, handle = done.kind, done.handle
            if kind is READ:
                try:
                    if handle.write(done) > 0:
                        handle.pause()
                except OSError:
                    # A channel whose write queue is smaller than what it receives in one turn; and
                    # what came behind that, in the same turn.
                    handle.abort()
            elif kind is WRITTEN:
                handle.resume()
            elif kind is FINISHED:
                handle.close()
            elif kind is DATAGRAM:
                # No frame is free, or no way leads back: the answer is lost, as datagrams may be.
                with contextlib.suppress(OSError):
                    handle.send(done, done.source)
