"""Views as text: what they show, how they fit, and what one can do to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.watch.top import render
from millrace.watch.top.render import Look
from millrace.watch.top.views import BY_NAME, VIEWS, View, bar, micros, number, share

from . import made_up


def shown(view: View, width: int, look: Look | None = None) -> list[str]:
    found = render.lines(view, view.of(made_up.tick()), look or Look(), width)
    return [found.heading, *found.rows]


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
@pytest.mark.parametrize("width", [20, 40, 79, 80, 132, 300])
def test_every_view_fits_every_width(view: View, width: int) -> None:
    lines = shown(view, width)
    assert len(lines) >= 2
    assert all(len(line) <= width for line in lines), lines


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
def test_at_80_columns_everything_that_matters_is_there(view: View) -> None:
    wanted = [column.heading for column in view.columns if column.priority == 0]
    heading = shown(view, 79, Look(sort="nothing"))[0]
    assert all(word in heading for word in wanted), heading
    # More room shows more.
    assert len(render.fit(view, 300)) == len(view.columns)


def test_keys_and_names_are_unique() -> None:
    assert len({view.key for view in VIEWS}) == len({view.name for view in VIEWS}) == len(VIEWS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (7, "7"),
        (0.25, "0.25"),
        (0.001, "0.001"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (1.5e6, "1.50M"),
        (2.34e9, "2.34G"),
        (1e15, "1000T"),
        (-1500, "-1.50k"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(0, 9.9e14) | st.integers(0, 9 * 10**14))
def test_no_number_takes_more_than_six_characters(value: float) -> None:
    assert len(number(value)) <= 6


def test_shares_times_and_bars() -> None:
    assert [share(value) for value in (0, 0.004, 0.5, 1, None)] == [
        "0%",
        "0.4%",
        "50%",
        "100%",
        "-",
    ]
    assert [micros(value) for value in (7, 1500, 2.5e6, None)] == ["7us", "1.5ms", "2.5s", "-"]
    assert [bar(value) for value in (0, 0.5, 1, 9, None)] == [
        "........",
        "####....",
        "########",
        "########",
        "-",
    ]


def test_rows_are_sorted_and_the_column_is_marked() -> None:
    view = BY_NAME["cpus"]
    by_packets = shown(view, 132, Look(sort="packets"))
    assert "pkt/s*" in by_packets[0]
    assert [line.split()[0] for line in by_packets[1:]] == ["3", "2", "1", "0"]
    other_way = shown(view, 132, Look(sort="packets", reverse=False))
    assert [line.split()[0] for line in other_way[1:]] == ["0", "1", "2", "3"]


def test_rows_are_filtered_by_any_of_their_texts() -> None:
    view = BY_NAME["sockets"]
    rows = view.of(made_up.tick())
    assert render.lines(view, rows, Look(filter="CUBIC"), 80).hidden == 0
    nothing = render.lines(view, rows, Look(filter="bbr"), 80)
    assert (nothing.rows, nothing.hidden) == ((), 1)


def test_a_baseline_turns_figures_into_differences() -> None:
    view = BY_NAME["cpus"]
    kept = render.baseline(view, view.of(made_up.tick(scale=1.0)))
    rows = view.of(made_up.tick(scale=1.5))
    (first, *_) = render.lines(view, rows, Look(baseline=kept), 132).rows
    assert first.split()[:2] == ["0", "25%"]
    assert "61.7M" in first
    # A row that was not there before is shown as it is.
    (first, *_) = render.lines(view, rows, Look(baseline={}), 132).rows
    assert first.split()[1] == "75%"
    overview = BY_NAME["overview"]
    kept = render.baseline(overview, overview.of(made_up.tick(scale=1.0)))
    rows = overview.of(made_up.tick(scale=1.5))
    assert "61.7M" in render.lines(overview, rows, Look(baseline=kept), 80).rows[0]


def test_control_characters_do_not_reach_the_terminal() -> None:
    (_, row) = shown(BY_NAME["hosts"], 132)
    assert "\x1b" not in row
    assert "?[31m" in row


def test_once_says_what_is_not_there() -> None:
    view = BY_NAME["stacks"]
    text = "\n".join(render.once(view, {"views": {}}, 80))
    assert "no Millrace process shows itself" in text
    assert render.once(view, {}, 80) == render.once(view, {"views": {}}, 80)
