"""Where the native half of the benchmarks is: the program `millrace-bench`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NAME = "millrace-bench"
VARIABLE = "MILLRACE_BENCH"


class BinaryMissing(RuntimeError):
    """`millrace-bench` is nowhere; the message says how to build it."""


def find() -> Path:
    """The program: what MILLRACE_BENCH names, else the source tree's release build, else PATH."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named)
        if not os.access(path, os.X_OK):
            raise BinaryMissing(f"{VARIABLE} names {named}, which is no program that can be run")
        return path
    for path in _built():
        if os.access(path, os.X_OK):
            return path
    found = shutil.which(NAME)
    if found is None:
        raise BinaryMissing(
            f"{NAME} is not built; run cargo build --release -p {NAME} in the source tree, "
            f"or set {VARIABLE} to the program"
        )
    return Path(found)


def _built() -> list[Path]:
    """Where cargo puts it, if this package is part of a source tree."""
    tree = Path(__file__).resolve().parents[3]
    if not (tree / "crates" / "bench" / "Cargo.toml").is_file():
        return []
    target = os.environ.get("CARGO_TARGET_DIR")
    folders = [tree / target] if target else []
    return [folder / "release" / NAME for folder in [*folders, tree / "target"]]
