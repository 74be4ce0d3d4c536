"""Names of places in the kernel."""

from __future__ import annotations

from pathlib import Path

from millrace.watch.symbols import Symbols

LINES = """\
ffffffff81000000 T _stext
ffffffff81000100 t local_function
ffffffff81000200 D some_data
ffffffff81000300 T last_function [a_module]
"""


def symbols(folder: Path, text: str) -> Symbols:
    path = folder / "kallsyms"
    path.write_text(text)
    return Symbols(str(path))


def test_an_address_is_in_the_function_before_it(tmp_path: Path) -> None:
    found = symbols(tmp_path, LINES)
    assert found.name(0xFFFFFFFF81000142) == "local_function+0x42"
    assert found.name(0xFFFFFFFF81000250) == "local_function+0x150"
    assert found.function(0xFFFFFFFF81000300) == "last_function"
    assert found.name(0x1000) == "0x1000"


def test_hidden_missing_and_broken_names_leave_the_address(tmp_path: Path) -> None:
    hidden = symbols(tmp_path, "0000000000000000 T _stext\n0000000000000000 t other\n")
    assert hidden.name(0xFFFFFFFF81000000) == "0xffffffff81000000"
    assert Symbols(str(tmp_path / "nothing")).name(0x42) == "0x42"
    assert symbols(tmp_path, "this is no table of symbols, is it\n").name(0x42) == "0x42"
    assert symbols(tmp_path, "").name(0x42) == "0x42"
