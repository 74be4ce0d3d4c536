"""A function's text and syntax tree, and places in it for messages."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from millrace.xdp.errors import CompileError


@dataclass(frozen=True)
class Place:
    """A piece of a source file; lines count from 1, columns from 0."""

    file: str
    line: int
    column: int = 0
    end_line: int | None = None
    end_column: int | None = None
    text: str = ""

    def refuse(self, message: str) -> NoReturn:
        """Raise the error that shows this place."""
        end_column = None if self.end_column is None else self.end_column + 1
        where = (self.file, self.line, self.column + 1, self.text, self.end_line, end_column)
        raise CompileError(message, where)


@dataclass(frozen=True)
class Source:
    """A function's syntax tree, at the lines and columns of its file."""

    file: str
    tree: ast.FunctionDef
    lines: tuple[str, ...]
    #: The number of the first of `lines`.
    first: int

    def place(self, node: ast.AST) -> Place:
        """Where a node stands."""
        line: int = getattr(node, "lineno", self.tree.lineno)
        index = line - self.first
        text = self.lines[index] if 0 <= index < len(self.lines) else ""
        column = self._column(text, getattr(node, "col_offset", 0))
        end_line = getattr(node, "end_lineno", None)
        end = getattr(node, "end_col_offset", None)
        if end_line == line and end is not None:
            return Place(self.file, line, column, end_line, self._column(text, end), text)
        # Of several lines the first is shown.
        return Place(self.file, line, column, line, len(text.rstrip()), text)

    @staticmethod
    def _column(text: str, offset: int) -> int:
        # The tree counts bytes of UTF-8, a message counts characters.
        return len(text.encode()[:offset].decode(errors="replace"))


def read(function: Callable[..., Any]) -> Source:
    """The source of a function.

    Raises CompileError for what has none: a lambda, a built-in function, one typed at a prompt.
    """
    code = getattr(function, "__code__", None)
    if code is None or not inspect.isfunction(function):
        raise CompileError(f"{function!r} is not a function that was written with def")
    here = Place(code.co_filename, code.co_firstlineno)
    if function.__name__ == "<lambda>":
        here.refuse("a lambda cannot become an XDP program; write a function with def")
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, IndexError):
        here.refuse(
            f"the source of {function.__name__} cannot be read; write it in a file, since a "
            "program is compiled from its text"
        )
    text = "".join(lines)
    # A function that is indented stands in something; taking the indent away would change texts of
    # several lines.
    inside = text[:1].isspace()
    try:
        body = ast.parse(f"if True:\n{text}" if inside else text).body
    except SyntaxError:
        here.refuse(f"the source of {function.__name__} is not what Python compiled; start again")
    if inside:
        body = body[0].body  # type: ignore[attr-defined]
    tree = body[0] if body else None
    if isinstance(tree, ast.AsyncFunctionDef):
        here.refuse("an async function cannot become an XDP program; write it with def alone")
    if not isinstance(tree, ast.FunctionDef) or tree.name != code.co_name:
        here.refuse(f"the source of {function.__name__} is not what Python compiled; start again")
    ast.increment_lineno(tree, first - 1 - inside)
    return Source(code.co_filename, tree, tuple(lines), first)
