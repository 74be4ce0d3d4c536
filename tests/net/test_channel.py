"""Operations and completions as Python sees them."""

from __future__ import annotations

import array
import errno
import mmap
import os
from collections.abc import Callable
from typing import Any

import pytest

import millrace
from millrace.net import (
    ACCEPTED,
    CLOSED,
    DATAGRAM,
    FINISHED,
    READ,
    WRITTEN,
    Channel,
    Completion,
    Handle,
    Kind,
)

SERVER = "192.0.2.2"


def read_all(pair: Any, length: int, side: str = "server") -> bytes:
    """So many bytes that one side reads."""
    got = bytearray()

    def done(client: list[Completion], server: list[Completion]) -> bool:
        for told in client if side == "client" else server:
            got.extend(told.data)
        return len(got) >= length

    pair.until(done)
    return bytes(got)


def test_a_question_is_answered(pair: Any) -> None:
    client, _ = pair.connect()
    assert client.write(b"mill") == 0
    answer = bytearray()

    def done(client: list[Completion], server: list[Completion]) -> bool:
        for told in server:
            if told.kind is READ:
                assert told.data == b"mill"
                assert told.data.readonly
                assert told.tobytes() == b"mill"
                assert len(told) == 4
                told.handle.write(told)
        for told in client:
            answer.extend(told.data)
        return len(answer) == 4

    pair.until(done)
    assert answer == b"mill"


def test_kinds_are_members_of_an_enumeration(pair: Any) -> None:
    told: list[Completion] = []
    client = pair.client.connect((SERVER, 80))

    def done(first: list[Completion], second: list[Completion]) -> bool:
        told.extend(first + second)
        return len(told) == 2

    pair.until(done)
    assert {one.kind for one in told} == {Kind.ACCEPTED, Kind.CONNECTED}
    assert all(one.kind is getattr(millrace, one.kind.name) for one in told)
    assert all(one.data == b"" and one.error is None and one.source is None for one in told)
    accepted = next(one for one in told if one.kind is ACCEPTED)
    assert accepted.listener is not None
    assert accepted.listener.type_name == "listener"
    assert client in {one.handle for one in told}


def test_a_handle_is_one_object_and_keeps_what_the_program_says(pair: Any) -> None:
    client, server = pair.connect()
    server.state = {"name": "first"}
    client.write(b"x")
    seen: list[Handle] = []

    def done(_: list[Completion], told: list[Completion]) -> bool:
        seen.extend(one.handle for one in told)
        return bool(seen)

    pair.until(done)
    assert seen[0] is server
    assert seen[0].state == {"name": "first"}
    assert client.state is None
    assert server.type_name == "connection"
    assert server.local == (SERVER, 80)
    assert server.remote == client.local
    assert repr(server) == f"<connection {SERVER}:80 to 192.0.2.1:{client.local[1]}>"


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        array.array("I", [1, 2, 3]),
        memoryview(bytearray(b"0123456789"))[2:8],
    ],
    ids=lambda data: type(data).__name__,
)
def test_anything_bytes_like_is_written(pair: Any, data: Any) -> None:
    client, _ = pair.connect()
    assert client.write(data) == 0
    wanted = bytes(data)
    assert read_all(pair, len(wanted)) == wanted


def test_a_map_of_a_file_is_written(pair: Any) -> None:
    client, _ = pair.connect()
    with mmap.mmap(-1, 100_000) as mapped:
        mapped[:] = os.urandom(len(mapped))
        client.write(mapped)
        assert read_all(pair, len(mapped)) == mapped[:]


def test_what_is_not_bytes_is_refused(pair: Any) -> None:
    client, _ = pair.connect()
    for wrong in ("text", 7, None, [1]):
        with pytest.raises(TypeError):
            client.write(wrong)
    with pytest.raises(BufferError):
        client.write(memoryview(b"0123456789")[::2])


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_what_does_not_fit_waits_and_is_told(make_pair: Callable[..., Any], kind: type) -> None:
    pair = make_pair(send_buffer=8192, send_buffer_max=8192, write_queue=300_000)
    pair.server.listen(80)
    client, _ = pair.connect()
    data = os.urandom(200_000)
    given = kind(data)
    waits = client.write(given)
    assert waits > 150_000
    assert client.waiting == waits
    assert client.write_room == 0
    if kind is bytearray:
        given[:] = bytes(len(given))  # it was copied, so this changes nothing
    del given
    got, written = bytearray(), []

    def done(first: list[Completion], second: list[Completion]) -> bool:
        written.extend(one for one in first if one.kind is WRITTEN)
        for one in second:
            got.extend(one.data)
        return len(got) == len(data) and written

    pair.until(done)
    assert got == data
    assert len(written) == 1
    assert client.waiting == 0


def test_a_full_write_queue_blocks_and_takes_nothing(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(send_buffer=8192, send_buffer_max=8192, write_queue=10_000)
    pair.server.listen(80)
    client, _ = pair.connect()
    client.write(bytes(30_000))
    waiting = client.waiting
    with pytest.raises(BlockingIOError, match="10000") as raised:
        client.write(b"more")
    assert raised.value.errno == errno.EAGAIN
    assert client.waiting == waiting
    other, _ = pair.connect()
    with pytest.raises(BlockingIOError, match="write less"):
        other.write(bytearray(30_000))
    assert other.waiting == 0


def test_a_paused_handle_holds_its_peer_back(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(
        send_buffer=16_384,
        send_buffer_max=16_384,
        receive_buffer=16_384,
        receive_buffer_max=16_384,
        write_queue=1 << 30,
    )
    pair.server.listen(80)
    client, server = pair.connect()
    server.pause()
    data = os.urandom(200_000)
    client.write(data)
    for _ in range(100):
        _, told = pair.turn()
        assert not told
    assert client.waiting > 150_000
    assert server.info().receive_queue > 0
    server.resume()
    assert read_all(pair, len(data)) == data


def test_half_close_and_close(pair: Any) -> None:
    client, server = pair.connect()
    client.write(b"last")
    client.shutdown()
    with pytest.raises(BrokenPipeError):
        client.write(b"more")
    told: list[Completion] = []

    def finished(_: list[Completion], second: list[Completion]) -> bool:
        told.extend(second)
        return told and told[-1].kind is FINISHED

    pair.until(finished)
    assert [one.kind for one in told] == [READ, FINISHED]
    assert server.info().state == "CLOSE-WAIT"
    server.write(b"answer")
    server.close()
    server.close()
    assert server.closed
    told.clear()

    def closed(first: list[Completion], _: list[Completion]) -> bool:
        told.extend(first)
        return told and told[-1].kind is CLOSED

    pair.until(closed)
    assert [one.kind for one in told] == [READ, FINISHED, CLOSED]
    assert told[-1].error is None
    assert client.closed
    assert repr(client) == "<closed connection>" or client.info()
    pair.turn()
    with pytest.raises(OSError, match="closed") as raised:
        client.write(b"x")
    assert raised.value.errno == errno.ENOTCONN


def test_what_is_written_before_there_is_an_answer_is_sent_though_closed(pair: Any) -> None:
    client = pair.client.connect((SERVER, 80))
    client.write(b"last words")
    client.close()
    told: list[Completion] = []

    def finished(first: list[Completion], second: list[Completion]) -> bool:
        assert not first
        told.extend(second)
        return told and told[-1].kind is FINISHED

    pair.until(finished)
    assert [one.tobytes() for one in told] == [b"", b"last words", b""]


def test_closing_with_something_untold_is_a_reset(pair: Any) -> None:
    client, server = pair.connect()
    server.pause()
    client.write(b"question")
    while server.info().receive_queue == 0:
        assert not any(pair.turn())
    server.write(b"answer")
    server.close()
    told: list[Completion] = []

    def closed(first: list[Completion], _: list[Completion]) -> bool:
        told.extend(first)
        return told and told[-1].kind is CLOSED

    pair.until(closed)
    assert isinstance(told[-1].error, ConnectionResetError)


def test_an_abort_is_a_reset_for_the_peer(pair: Any) -> None:
    client, server = pair.connect()
    client.abort()
    told: list[Completion] = []

    def closed(first: list[Completion], second: list[Completion]) -> bool:
        assert not first
        told.extend(second)
        return bool(told)

    pair.until(closed)
    assert told[0].handle is server
    assert isinstance(told[0].error, ConnectionResetError)
    assert told[0].error.errno == errno.ECONNRESET
    assert "reset" in repr(told[0])


def test_datagrams_have_a_source(pair: Any) -> None:
    server = pair.server.datagram(53)
    client = pair.client.datagram(peer=(SERVER, 53))
    client.send(b"question")
    client.send(bytearray(b""), (SERVER, 53))
    told: list[Completion] = []

    def two(_: list[Completion], second: list[Completion]) -> bool:
        told.extend(second)
        return len(told) == 2

    pair.until(two)
    assert [(one.kind, one.handle) for one in told] == [(DATAGRAM, server)] * 2
    assert [one.tobytes() for one in told] == [b"question", b""]
    assert told[0].source == ("192.0.2.1", client.local[1])
    server.send(told[0], told[0].source)
    answers: list[Completion] = []

    def answered(first: list[Completion], _: list[Completion]) -> bool:
        answers.extend(first)
        return bool(answers)

    pair.until(answered)
    assert answers[0].data == b"question"
    assert client.dropped == 0
    client.dont_fragment(True)
    with pytest.raises(ValueError, match="1472"):
        client.send(bytes(1473))
    with pytest.raises(OSError, match="no destination"):
        server.send(b"to whom?")
    with pytest.raises(ValueError, match="datagram socket"):
        client.write(b"no stream")


def test_long_datagrams_come_whole(pair: Any) -> None:
    server = pair.server.datagram(53)
    client = pair.client.datagram(peer=(SERVER, 53))
    data = os.urandom(65_507)
    client.send(data)
    told: list[Completion] = []

    def one(_: list[Completion], second: list[Completion]) -> bool:
        told.extend(second)
        return bool(told)

    pair.until(one)
    assert (told[0].kind, told[0].handle) == (DATAGRAM, server)
    assert told[0].tobytes() == data
    with pytest.raises(ValueError, match="65507"):
        client.send(bytes(65_508))


def test_information_about_a_connection(pair: Any) -> None:
    client, _ = pair.connect()
    client.write(b"x" * 1000)
    read_all(pair, 1000)
    info = client.info()
    assert info.state == "ESTABLISHED"
    assert info.local == client.local
    assert info.remote == (SERVER, 80)
    # The timestamps of every segment take twelve bytes of it.
    assert info.mss == 1448
    assert info.slow_start_threshold is None
    assert info.round_trip is not None
    assert 0 < info.round_trip < 60
    assert info.retransmission_timeout >= 0.2
    assert info.send_window > 0
    assert info.receive_window > 0
    assert info.retries == 0
    assert "ESTABLISHED" in repr(info)


def test_counters_statistics_and_facts(pair: Any) -> None:
    client, _ = pair.connect()
    client.write(b"x")
    read_all(pair, 1)
    counters = pair.server.counters()
    assert counters["connections_accepted"] == 1
    assert counters["payloads_copied"] == 0
    assert counters["turns"] >= 2
    assert not any(value for name, value in counters.items() if name.startswith("drop_"))
    statistics = pair.server.statistics()
    assert statistics["rx_packets"] >= 3
    assert statistics["rx_no_frame"] == 0
    facts = pair.server.facts
    assert facts["port"].startswith("memory:")
    assert "2048 of 2048 bytes" in facts["frames"]
    assert pair.server.connections == 1


def test_a_turn_ends_in_time(wire_name: str) -> None:
    with Channel(wire_name, "192.0.2.1/24", frames=512) as channel:
        assert channel.turn(0) == []
        assert channel.turn(0.02) == []
        assert channel.turn(-1.0) == []
        with pytest.raises(ValueError, match="NaN"):
            channel.turn(float("nan"))


@pytest.mark.parametrize("wait", ["sleep", "spin", 50.0])
def test_the_way_of_waiting_can_be_chosen_and_changed(wire_name: str, wait: Any) -> None:
    with Channel(wire_name, "192.0.2.1/24", wait=wait, frames=512) as channel:
        assert channel.wait == wait
        assert channel.turn(0.01) == []
        channel.wait = "sleep"
        assert channel.wait == "sleep"


def test_iteration_ends_when_the_channel_is_closed(pair: Any) -> None:
    client, _ = pair.connect()
    client.write(b"x")
    pair.client.turn(0)
    batches = 0
    for batch in pair.server:
        batches += 1
        assert batch[0].kind is READ
        pair.server.close(0)
    assert batches == 1
    assert pair.server.closed
    assert list(pair.server) == []


def test_nothing_is_configured_on_a_closed_channel(wire_name: str) -> None:
    channel = Channel(wire_name, "192.0.2.1/24", frames=512)
    channel.close()
    for configure in (
        lambda: channel.add_address("198.51.100.7/24"),
        lambda: channel.remove_address("192.0.2.1"),
        lambda: channel.add_route("203.0.113.0/24", "192.0.2.254"),
        lambda: channel.remove_route("203.0.113.0/24", "192.0.2.254"),
        lambda: setattr(channel, "wait", "spin"),
    ):
        with pytest.raises(OSError, match="the channel is closed") as raised:
            configure()
        assert raised.value.errno == errno.ENOTCONN


def test_iteration_ends_when_the_other_end_has_left(wire_name: str) -> None:
    with Channel(wire_name, "192.0.2.1/24", frames=512) as channel:
        Channel(wire_name, "192.0.2.2/24", frames=512).close()
        assert list(channel) == []
        assert channel.turn() is None


def test_a_closed_channel_has_all_its_frames_back(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(write_queue=1 << 24)
    pair.server.listen(80)
    for _ in range(20):
        client, server = pair.connect()
        client.write(bytes(500_000))
        server.write(bytes(500_000))
    pair.turn()
    free, total = pair.server.frames
    assert free < total
    pair.close()
    assert pair.client.frames == (2048, 2048)
    assert pair.server.frames == (2048, 2048)


def test_leaving_the_block_delivers_what_was_written(wire_name: str) -> None:
    with Channel(wire_name, "192.0.2.2/24", frames=2048) as server:
        server.listen(80)
        with Channel(wire_name, "192.0.2.1/24", frames=2048) as client:
            handle = client.connect((SERVER, 80))
            for _ in range(5):
                client.turn(0)
                server.turn(0)
            handle.write(b"last words")
        told = server.turn(1.0)
        assert told is not None
        assert told[0].data == b"last words"
    assert client.closed
    assert repr(client) == f"<closed Channel on {wire_name}>"


def test_a_channel_that_is_forgotten_closes_itself(wire_name: str) -> None:
    channel = Channel(wire_name, "192.0.2.1/24", frames=512)
    handle = channel.listen(80)
    del channel
    assert handle.closed
    with pytest.raises(OSError, match="closed"):
        _ = handle.local
    # The wire's place is free again.
    Channel(wire_name, "192.0.2.1/24", frames=512).close()


def test_options_have_the_names_and_values_of_setsockopt(pair: Any) -> None:
    client, _server = pair.connect()
    for name, value in [
        ("TCP_NODELAY", 0),
        ("TCP_KEEPIDLE", 10),
        ("TCP_USER_TIMEOUT", 2500),
        ("SO_LINGER", 3),
        ("TCP_CONGESTION", "reno"),
    ]:
        client.set_option(name, value)
        assert client.option(name) == value
    with pytest.raises(ValueError, match="TCP_KEEPCNT"):
        client.set_option("TCP_KEEPCNT", 1000)
    with pytest.raises(ValueError, match="TCP_NONSENSE"):
        client.set_option("TCP_NONSENSE", 1)
    with pytest.raises(TypeError, match="TCP_NODELAY"):
        client.set_option("TCP_NODELAY", "on")


def test_tcp_info_has_the_names_of_linux(pair: Any) -> None:
    client, _ = pair.connect()
    client.write(b"mill")
    read_all(pair, 4)
    info = client.tcp_info()
    assert info["tcpi_state"] == 1
    assert info["tcpi_bytes_sent"] == 4
    assert info["tcpi_data_segs_out"] == 1
