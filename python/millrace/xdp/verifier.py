"""What the verifier says, told of lines of Python."""

from __future__ import annotations

import linecache
import re

from millrace.xdp.compiler.compile import Compiled
from millrace.xdp.errors import VerifierError

#: "12: (69) r1 = *(u16 *)(r2 +12)"
_INSTRUCTION = re.compile(r"^(\d+): \([0-9a-f]{2}\) (.*)$", re.MULTILINE)
#: Words that may stand behind an instruction, on its line.
_LIMITS = re.compile(r"BPF program is too large\..*|The sequence of \d+ jumps is too complex.*")
_NOISE = ("processed ", "verification time", "stack depth", "peak_states", "mark_precise:")


def explained(error: OSError, compiled: Compiled, name: str) -> OSError:
    """The error of a load as one that names the line of Python, if the verifier refused it."""
    log = getattr(error, "log", None)
    if log is None:
        return error
    assembled = compiled.assembled
    found = list(_INSTRUCTION.finditer(log))
    reason = _reason(log)
    assert error.errno is not None
    if not found:
        message = f"the verifier refused {name}: {reason}"
        return VerifierError(error.errno, message, reason=reason, log=log)
    slot = int(found[-1][1])
    # What it complains of is the instruction that it looked at last.
    line = _line_of(assembled.lines, slot)
    text = linecache.getline(compiled.file, line).rstrip() if line else ""
    where = f'  File "{compiled.file}", line {line}\n    {text.strip()}\n' if line else ""
    message = (
        f"the verifier refused {name}: {reason}\n{where}"
        f"  at instruction {slot}: {found[-1][2]}\n"
        "  program.explain() shows all of them, this error's log what the verifier saw"
    )
    return VerifierError(
        error.errno,
        message,
        reason=reason,
        log=log,
        source=compiled.file,
        lineno=line or None,
        text=text or None,
        instruction=slot,
    )


def _line_of(lines: list[int], slot: int) -> int:
    """The line of a slot, or of one before it where it has none."""
    while slot > 0 and (slot >= len(lines) or not lines[slot]):
        slot -= 1
    return lines[slot] if lines else 0


def _reason(log: str) -> str:
    """The verifier's last word."""
    limit = _LIMITS.search(log[-4096:])
    if limit is not None:
        return limit[0]
    for line in reversed(log.splitlines()):
        line = line.strip()
        if not line or line.startswith(_NOISE) or _INSTRUCTION.match(line):
            continue
        if re.match(r"^\d+: |^from \d+ to \d+|^R\d+[_=]|^; ", line):
            continue
        return line
    return "it gives no reason"
