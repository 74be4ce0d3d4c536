"""What a batch shows, and that a view of it never shows anything else."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

import millrace
from millrace.packets import HEADER_FIELDS, Flags

from .conftest import udp

Pair = tuple[millrace.Port, millrace.Port]


def test_columns_and_bytes_are_what_was_sent(pair: Pair) -> None:
    left, right = pair
    frames = [udp(number, bytes(number)) for number in range(50)]
    assert left.send(frames) == 50
    batch = right.receive(0)
    assert batch is not None
    assert len(batch) == 50
    assert [bytes(frame) for frame in batch] == frames
    assert batch.tolist() == frames
    assert batch.length.tolist() == [len(frame) for frame in frames]
    assert batch.original_length.tolist() == batch.length.tolist()
    assert batch.nbytes == sum(map(len, frames))
    assert not batch.queue.any()
    assert not batch.flags.any()
    start, length = int(batch.offset[7]), int(batch.length[7])
    assert batch.buffer[start : start + length].tobytes() == frames[7]
    dtypes = {
        name: getattr(batch, name).dtype
        for name in ("offset", "length", "original_length", "timestamp", "queue", "flags", "buffer")
    }
    assert list(dtypes.values()) == [
        np.int64,
        *[np.uint32] * 2,
        np.int64,
        *[np.uint16] * 2,
        np.uint8,
    ]


def test_columns_are_views_and_cannot_be_written(pair: Pair) -> None:
    left, right = pair
    left.send([udp()])
    batch = right.receive(0)
    assert batch is not None
    for array in (batch.offset, batch.length, batch.buffer):
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(TypeError, match="read-only"):
        batch[0][0] = 1


def test_a_view_outlives_batch_port_and_arena(make_pair: Callable[..., Pair]) -> None:
    left, right = make_pair(frames=64)
    left.send([udp(1)])
    batch = right.receive(0)
    assert batch is not None
    view, column, part = batch[0], batch.length, batch[0:1]
    del batch
    # So much more than there are frames, that the same memory is used again.
    for number in range(300):
        left.send([udp(number, b"other")])
        right.receive(0)
    right.close()
    left.close()
    del left, right
    gc.collect()
    assert bytes(view) == udp(1) == bytes(part[0])
    assert column.tolist() == [60]


def test_who_keeps_batches_gets_copies_and_everything_goes_on(
    make_pair: Callable[..., Pair],
) -> None:
    left, right = make_pair(frames=64, batch=8)
    kept = []
    for number in range(200):
        assert left.send([udp(number)]) == 1
        kept.append(right.receive(0))
    assert [bytes(batch[0]) for batch in kept if batch] == [udp(number) for number in range(200)]
    assert not kept[0].copied
    assert kept[-1].copied
    stats = right.stats()
    assert stats["rx_copied"] == sum(batch.copied for batch in kept)
    assert not any(stats["drops"].values())
    assert right.frames[0] < 32
    kept.clear()
    assert right.frames == (64, 64)


def test_parts_of_a_batch(pair: Pair) -> None:
    left, right = pair
    frames = [udp(number) for number in range(10)]
    left.send(frames)
    batch = right.receive(0)
    assert batch is not None
    assert batch[3:7].tolist() == frames[3:7]
    assert batch[::-2].tolist() == frames[::-2]
    assert batch[5:5].tolist() == []
    ports = batch.headers()["source_port"]
    assert batch[ports % 2 == 0].tolist() == frames[::2]
    assert batch[[9, 0, -1]].tolist() == [frames[9], frames[0], frames[9]]
    assert batch[np.array([], dtype=int)].tolist() == []
    assert batch[[False] * 10].tolist() == []
    assert batch[np.uint8([2])].tolist() == [frames[2]]
    assert bytes(batch[-1]) == frames[-1]
    assert batch[2:][batch.headers()["source_port"][2:] == 1026].tolist() == [frames[2]]


@pytest.mark.parametrize("index", [10, -11, 2**40])
def test_a_place_that_is_not_there(pair: Pair, index: int) -> None:
    batch = millrace.Batch([udp()] * 10)
    with pytest.raises(IndexError, match=f"no packet {index} in a batch of 10"):
        batch[index]


def test_what_is_no_index() -> None:
    batch = millrace.Batch([udp()] * 3)
    with pytest.raises(IndexError, match="mask has 2 entries, and the batch 3"):
        batch[[True, False]]
    with pytest.raises(IndexError, match="no packet 3"):
        batch[[0, 3]]
    for wrong in ("0", 1.5, np.zeros((1, 3), dtype=bool), [0.5]):
        with pytest.raises(TypeError, match="indexed by a number, a slice"):
            batch[wrong]  # type: ignore[call-overload]


def test_a_batch_from_bytes() -> None:
    rows = np.arange(120, dtype=np.uint8).reshape(2, 60)
    for frames in ([udp(1), bytearray(udp(2)), memoryview(udp(3))], rows, (udp(1),), iter([b""])):
        batch = millrace.Batch(frames, timestamp=5)
        assert batch.copied
        assert set(batch.timestamp.tolist()) == {5}
    assert millrace.Batch(rows).tolist() == [row.tobytes() for row in rows]
    assert millrace.Batch(udp(7)).tolist() == [udp(7)]
    assert millrace.Batch([]).tolist() == []
    assert millrace.Batch([]).length.tolist() == []
    assert millrace.Batch([]).headers().shape == (0,)
    for wrong in ([1], 5, ["text"], [None]):
        with pytest.raises(TypeError, match="is no frame: a frame is a bytes-like object"):
            millrace.Batch(wrong)  # type: ignore[arg-type]
    for array in (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 60)), [np.zeros(60, np.uint16)]):
        with pytest.raises(BufferError):
            millrace.Batch(array)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        millrace.Batch(np.zeros((60, 60), np.uint8)[:, ::2])


def test_headers_are_a_table_of_numbers() -> None:
    batch = millrace.Batch([udp(1, b"abc"), udp(2, vlan=7), b"", b"\xff" * 13], timestamp=9)
    headers = batch.headers()
    assert headers.dtype.names == tuple(name for name, _, _ in HEADER_FIELDS)
    assert headers["source_port"].tolist() == [1025, 1026, 0, 0]
    assert headers["vlan"].tolist() == [0, 7, 0, 0]
    assert headers["payload_length"].tolist() == [3, 0, 0, 13]
    assert headers["length"].tolist() == [60, 60, 0, 13]
    assert headers["timestamp"].tolist() == [9] * 4
    assert headers["source_ipv4"][0] == 0x0A000001
    assert headers["flow_hash"][0] != headers["flow_hash"][1]
    # It belongs to who asked for it.
    headers["source_port"] = 0
    assert batch.headers()["source_port"][0] == 1025


def test_flags_have_names() -> None:
    assert Flags.CUT | Flags.OUTGOING == 3
    assert Flags(16).name == "CHECKSUM_UNFINISHED"
