"""Whole numbers that ports, loops, captures and replays cannot have are refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millrace
from millrace.lab import Lab
from millrace.packets import Capture, Replay, forward, l2fwd, rxdrop, txpush
from millrace.packets.generator import Generator, Template

from .conftest import udp

Use = Callable[[str, Any], object]

_names = (f"memory:numbers{number}" for number in itertools.count())

PORT = ["batch", "frames", "frame_size", "mtu", "snap_length", "busy_poll", "ring_bytes"]
CAPTURE = ["packets", "snap_length", "buffer_bytes", "rotate_bytes", "keep"]
LOOP = ["packets", "batch"]
CASES = [
    *(("open", name) for name in PORT),
    *(("Capture", name) for name in CAPTURE),
    *(("Replay", name) for name in ("times", "packets", "batch")),
    *(("Generator", name) for name in ("packets", "burst", "batch")),
    *itertools.product(("rxdrop", "txpush", "l2fwd"), LOOP),
    ("forward", "seed"),
    ("Batch", "timestamp"),
    ("top", "count"),
    ("render", "count"),
]


@pytest.fixture
def uses(
    make_pair: Callable[..., tuple[millrace.Port, millrace.Port]], tmp_path: Path
) -> dict[str, Use]:
    """What takes numbers by name."""
    left, right = make_pair()
    file = tmp_path / "one.pcapng"
    with millrace.open(f"pcap:,{file}", hugepages=False) as port:
        port.send([udp()])
    frames = millrace.Batch([udp()])
    capture = Capture(next(_names), flows=True)
    template = Template(udp())
    return {
        "open": lambda name, value: millrace.open(next(_names), **{name: value}).close(),
        "Capture": lambda name, value: Capture(
            next(_names), tmp_path / "trace.pcapng", **{name: value}
        ),
        "Replay": lambda name, value: Replay(file, **{name: value}),
        "Generator": lambda name, value: Generator(template, **{name: value}),
        "rxdrop": lambda name, value: rxdrop(right, seconds=0, **{name: value}),
        "txpush": lambda name, value: txpush(left, frames, seconds=0, **{name: value}),
        "l2fwd": lambda name, value: l2fwd(left, right, seconds=0, **{name: value}),
        "forward": lambda name, value: forward(left, right, duration=0, **{name: value}),
        "Batch": lambda name, value: millrace.Batch([udp()], **{name: value}),
        "top": lambda name, value: capture.top(**{name: value}),
        "render": lambda name, value: Generator(template).render(**{name: value}),
    }


@pytest.mark.parametrize(("use", "name"), CASES)
def test_what_is_out_of_range_is_a_value_error(uses: dict[str, Use], use: str, name: str) -> None:
    numbers = [1 << 70, -(1 << 70), 1 << 200]
    if name != "timestamp":
        numbers.append(-1)
    for number in numbers:
        shown = "a number of more" if number == 1 << 200 else str(number)
        with pytest.raises(ValueError, match=rf"\b{name} is .*, not {shown}"):
            uses[use](name, number)


@pytest.mark.parametrize(("use", "name"), CASES)
def test_what_is_no_whole_number_is_a_type_error(uses: dict[str, Use], use: str, name: str) -> None:
    for wrong in (1.5, True, "7"):
        with pytest.raises(TypeError, match=name):
            uses[use](name, wrong)


def test_no_more_packets_are_rendered_than_there_may_be_memory_for() -> None:
    template = Template(udp())
    for count in (1 << 62, 1 << 40, (1 << 30) // len(udp())):
        with pytest.raises(ValueError, match=f"^count is a whole number .*, not {count}$"):
            Generator(template).render(count)


@pytest.mark.networks
def test_a_ring_that_is_larger_than_any_is_refused(lab: Lab) -> None:
    """Not quietly made smaller, while `Capture.facts` told of the size that was asked for."""
    host = lab.host("one")
    most = 2 << 30
    with host.enter():
        with pytest.raises(
            ValueError, match=f"^buffer_bytes is .* from 0 to {most}, not {1 << 40}$"
        ):
            Capture("lo", buffer_bytes=1 << 40)
        with pytest.raises(ValueError, match=f"lo: a receive ring .* at most {most // 2} bytes"):
            millrace.open("af_packet:lo", ring_bytes=most)
