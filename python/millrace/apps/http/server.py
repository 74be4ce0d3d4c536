"""The server's loop, and what it remembers of a connection that is in the middle of something."""

from __future__ import annotations

from millrace.apps.http import body
from millrace.apps.http.content import Content, Receiver, Response, Stream
from millrace.apps.http.request import END_OF_HEAD, MAX_HEAD, Malformed, Request, parse
from millrace.net import CLOSED, FINISHED, READ, WRITTEN, Channel, Completion, Handle

PORT = 80

#: Requests whose answers are known by heart, and how long one may be.
REMEMBERED = 1024
REMEMBERED_BYTES = 1024

#: What a client may still send after it was refused, before its connection is reset.
_MAX_IGNORED = 1 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOTHING = memoryview(b"")


class Server:
    """Answers HTTP/1.1 requests with `content`."""

    def __init__(self, content: Content, *, max_head: int = MAX_HEAD) -> None:
        self.content = content
        #: Bytes that the head of a request may have; more is answered with 431.
        self.max_head = max_head
        # The bytes of whole requests with their answers, for answers that repeat. Two requests of
        # the same bytes are the same request, so the second needs no parsing. Those in `_last` end
        # their connection.
        self._known: dict[bytes, bytes] = {}
        self._last: dict[bytes, bytes] = {}
        # Connections in the middle of something; most are not.
        self._sessions: dict[Handle, _Session] = {}

    def serve(self, channel: Channel, port: int = PORT) -> None:
        """Answer on `port` until the channel is closed."""
        channel.listen(port)
        sessions, known, last = self._sessions, self._known.get, self._last.get
        for batch in channel:
            for done in batch:
                try:
                    if done.kind is not READ:
                        self._other(done)
                        continue
                    handle = done.handle
                    if sessions and handle in sessions:
                        sessions[handle].read(done.data)
                        continue
                    # Nearly always this is one whole request, and one that was seen before.
                    data = done.tobytes()
                    if (answer := known(data)) is not None:
                        if handle.write(answer):
                            self._session(handle).hold_back()
                    elif (answer := last(data)) is not None:
                        handle.write(answer)
                        handle.close()
                    else:
                        self._session(handle).read(done.data)
                except OSError:
                    # Closed by us earlier in this batch, or a file that cannot be read: either way
                    # this connection is of no more use, and the others are.
                    self._give_up(done.handle)

    def _give_up(self, handle: Handle) -> None:
        handle.abort()
        if (session := self._sessions.get(handle)) is not None:
            session.forget()

    def _other(self, done: Completion) -> None:
        kind, handle = done.kind, done.handle
        session = self._sessions.get(handle)
        if kind is WRITTEN and session is not None:
            session.written()
        elif kind is CLOSED and session is not None:
            session.forget()
        elif kind is FINISHED:
            if session is None:
                handle.close()
            else:
                session.finished()

    def _session(self, handle: Handle) -> _Session:
        session = self._sessions[handle] = _Session(self, handle)
        return session

    def drop(self, handle: Handle) -> None:
        """A connection is in the middle of nothing any more."""
        self._sessions.pop(handle, None)

    def remember(self, request: bytes, answer: bytes, keep_alive: bool) -> None:
        """Answer a request of the same bytes in the same way from now on."""
        if len(request) > REMEMBERED_BYTES:
            return
        answers = self._known if keep_alive else self._last
        if len(answers) >= REMEMBERED:
            answers.clear()
        answers[request] = answer


class _Session:
    """A connection with a request that is not complete, or an answer that is not sent."""

    __slots__ = (
        "_blocked",
        "_buffer",
        "_framing",
        "_handle",
        "_ignored",
        "_last",
        "_left",
        "_peer_finished",
        "_receiver",
        "_request",
        "_server",
        "_stream",
    )

    def __init__(self, server: Server, handle: Handle) -> None:
        self._server = server
        self._handle = handle
        #: Received and not understood yet.
        self._buffer = bytearray()
        #: The request whose body is coming, and what takes it.
        self._request: Request | None = None
        self._framing: body.Sized | body.Chunked | None = None
        self._receiver: Receiver | None = None
        #: The rest of an answer, and how many bytes of it are left.
        self._stream: Stream | None = None
        self._left = 0
        #: No more is read until what was written is on its way.
        self._blocked = False
        #: The answer that is being sent is the connection's last.
        self._last = False
        self._peer_finished = False
        #: Bytes that came after a refusal; None before one.
        self._ignored: int | None = None

    def read(self, data: memoryview) -> None:
        """Bytes came in."""
        if self._ignored is not None:
            self._ignored += len(data)
            if self._ignored > _MAX_IGNORED:
                self._handle.abort()
                self.forget()
            return
        if self._blocked or self._last:
            self._buffer += data
            return
        fresh = not self._buffer
        if not fresh:
            self._buffer += data
            data = memoryview(bytes(self._buffer))
            self._buffer.clear()
        try:
            self._buffer += self._consume(data, fresh)
        except Malformed as error:
            self._refuse(error)
        self._drop_if_idle()

    def written(self) -> None:
        """Nothing that was written waits any more."""
        if self._ignored is not None:
            return
        if self._stream is not None:
            self._pump()
        else:
            self._sent()

    def finished(self) -> None:
        """The peer sends no more."""
        if self._blocked and self._ignored is None:
            # It has sent requests that are still to be answered.
            self._peer_finished = True
        else:
            self._handle.close()
            self.forget()

    def forget(self) -> None:
        """The connection is over."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._server.drop(self._handle)

    def hold_back(self) -> None:
        """Read no more until what was written is on its way."""
        if not self._blocked:
            self._blocked = True
            self._handle.pause()

    def _drop_if_idle(self) -> None:
        busy = self._blocked or self._buffer or self._framing or self._ignored is not None
        if not busy:
            self._server.drop(self._handle)

    def _consume(self, data: memoryview, fresh: bool) -> memoryview:
        """Answer what is complete, and give back what is not."""
        while data and not self._blocked and not self._last:
            if self._framing is not None:
                data = self._take_body(data)
                continue
            start = data[: self._server.max_head + len(END_OF_HEAD)].tobytes()
            # An empty line before a request is an old client's mistake (RFC 9112, section 2.2).
            if start.startswith(b"\r\n"):
                data, fresh = data[2:], False
                continue
            end = start.find(END_OF_HEAD)
            if end < 0:
                if len(start) > self._server.max_head:
                    raise Malformed(431, f"the head has more than {self._server.max_head} bytes")
                return data
            request = parse(start[:end])
            end += len(END_OF_HEAD)
            data = data[end:]
            self._begin(request, start[:end] if fresh and not data else None, bool(data))
            fresh = False
        return data

    def _take_body(self, data: memoryview) -> memoryview:
        assert self._framing is not None
        assert self._receiver is not None
        assert self._request is not None
        used = self._framing.feed(data, self._receiver.take)
        if used is None:
            return _NOTHING
        request, response = self._request, self._receiver.finish()
        self._framing = self._receiver = self._request = None
        self._respond(request, response)
        return data[used:]

    def _begin(self, request: Request, alone: bytes | None, more: bool) -> None:
        """Begin with a request; `alone` are its bytes if it came whole and by itself."""
        content = self._server.content
        if not request.has_body:
            self._respond(request, content.answer(request), alone)
            return
        receiver = content.receive(request)
        if isinstance(receiver, Response):
            # The body is coming all the same, and would be taken for the next request.
            raise Malformed(receiver.status, receiver.body.decode(errors="replace").strip())
        self._request, self._receiver = request, receiver
        self._framing = body.Chunked() if request.length is None else body.Sized(request.length)
        if request.expects_continue and not more:
            self._handle.write(_CONTINUE)

    def _respond(self, request: Request, response: Response, alone: bytes | None = None) -> None:
        keep_alive = request.keep_alive
        answer = response.head(keep_alive)
        if request.method == "HEAD":
            if response.stream is not None:
                response.stream.close()
                response.stream = None
        else:
            answer += response.body
        self._last = not keep_alive
        if alone is not None and response.repeats:
            self._server.remember(alone, answer, keep_alive)
        waits = self._handle.write(answer)
        if response.stream is not None:
            self._stream, self._left = response.stream, response.length or 0
            self.hold_back()
            if not waits:
                self._pump()
        elif waits:
            self.hold_back()
        elif self._last:
            self._handle.close()
            self.forget()

    def _pump(self) -> None:
        """Write of the stream what is taken without waiting, and a piece more."""
        assert self._stream is not None
        for chunk in self._stream:
            self._left -= len(chunk)
            if self._handle.write(chunk):
                return
        self._stream.close()
        self._stream = None
        if self._left:
            # The file has shrunk: only an error tells the client that this is not all.
            self._handle.abort()
            self.forget()
        else:
            self._sent()

    def _sent(self) -> None:
        """An answer is on its way as a whole."""
        if self._last or (self._peer_finished and not self._buffer):
            self._handle.close()
            self.forget()
            return
        if self._blocked:
            self._blocked = False
            self._handle.resume()
        if self._buffer:
            data = memoryview(bytes(self._buffer))
            self._buffer.clear()
            try:
                self._buffer += self._consume(data, fresh=False)
            except Malformed as error:
                self._refuse(error)
        if self._peer_finished and not self._blocked:
            # What is left can never become a request.
            self._handle.close()
            self.forget()
        else:
            self._drop_if_idle()

    def _refuse(self, error: Malformed) -> None:
        """Say what is wrong and end the connection, but not before the client can have heard it."""
        response = Response.plain(error.status, str(error))
        self._framing = self._receiver = self._request = None
        self._buffer.clear()
        self._ignored = 0
        if self._blocked:
            self._blocked = False
            self._handle.resume()
        self._handle.write(response.head(keep_alive=False) + response.body)
        self._handle.shutdown()
