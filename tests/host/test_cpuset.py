"""Lists and masks of CPUs, as the kernel writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.host import cpuset

CPUS = st.frozensets(st.integers(0, 300), max_size=40)


@given(CPUS)
def test_list_is_read_back(cpus: frozenset[int]) -> None:
    assert cpuset.parse_list(cpuset.format_list(cpus)) == cpus


@given(CPUS)
def test_mask_is_read_back(cpus: frozenset[int]) -> None:
    assert cpuset.parse_mask(cpuset.format_mask(cpus)) == cpus


def test_the_kernels_forms() -> None:
    assert cpuset.parse_list("0-3,8\n") == {0, 1, 2, 3, 8}
    assert cpuset.format_list([8, 0, 1, 2, 3]) == "0-3,8"
    assert cpuset.parse_mask("00000001,00000003\n") == {0, 1, 32}
    assert cpuset.format_mask([0, 1, 32]) == "1,00000003"
    assert cpuset.format_mask([]) == "0"
    assert cpuset.parse_list("\n") == frozenset()


@pytest.mark.parametrize("text", ["x", "1-", "-1", "9999", "0-99999999999", "1,,x"])
def test_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|no CPU"):
        cpuset.parse_list(text)


@pytest.mark.parametrize("text", ["xyz", "f" * 5000])
def test_no_mask(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|more than"):
        cpuset.parse_mask(text)
