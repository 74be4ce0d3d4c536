"""Instructions beside the source."""

from __future__ import annotations

import linecache

from millrace.xdp.compiler.compile import Compiled


def listing(compiled: Compiled, name: str) -> str:
    """The instructions of a program, in the kernel's notation, under the lines they come from."""
    from millrace import _native

    assembled = compiled.assembled
    names = {slot: used.name or type(used).__name__ for slot, used in assembled.maps}
    interfaces = dict(assembled.interfaces)
    told = [f"{name}: {assembled.instructions} instructions in {assembled.slots} slots"]
    last = -1
    for slot, text in _native.xdp_disassemble(assembled.code):
        line = assembled.lines[slot]
        if line and line != last:
            source = linecache.getline(compiled.file, line).rstrip()
            told.append(f"{line:5d} | {source}")
            last = line
        if slot in names:
            register = text.split(" = ", 1)[0]
            text = f"{register} = map {names[slot]}"
        elif slot in interfaces:
            text = f"{text.split(' = ', 1)[0]} = index of {interfaces[slot]}"
        elif "goto " in text:
            head, _, offset = text.rpartition("goto ")
            text = f"{head}goto {slot + 1 + int(offset)}"
        told.append(f"      |   {slot:4d}: {text}")
    return "\n".join(told)
