"""softnet_stat of several kernels."""

from __future__ import annotations

import pytest

from millrace.host.softnet import SoftnetCpu, parse


def line(*words: int) -> str:
    return " ".join(f"{word:08x}" for word in words)


@pytest.mark.parametrize("columns", [10, 11, 13, 15])
def test_columns_of_every_kernel(columns: int) -> None:
    words = [1000, 2, 3, 0, 0, 0, 0, 0, 0, 7, 8, 9, 0, 4, 5][:columns]
    (row,) = parse(line(*words))
    assert row == SoftnetCpu(
        cpu=0,
        processed=1000,
        dropped=2,
        squeezed=3,
        received_rps=7,
        flow_limit=8 if columns > 10 else 0,
        backlog=9 if columns > 11 else 0,
    )


def test_offline_cpus_are_left_out() -> None:
    rows = parse("\n".join(line(1, *[0] * 11, cpu, 0, 0) for cpu in (0, 3)))
    assert [row.cpu for row in rows] == [0, 3]


def test_no_numbers() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse("x y z")
