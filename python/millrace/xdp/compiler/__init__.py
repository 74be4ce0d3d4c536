"""From a Python function to eBPF instructions.

    source      the function's text and syntax tree, with places for messages
    frontend    what the subset is: names, kinds, and a typed tree; with assignments, expressions,
                calls, elements and operators, one below the other
    plain       the typed tree as a Python function again, for runs without a kernel
    lower       the typed tree as a graph of simple operations; with accesses (of maps), values,
                packets and operations, one below the other
    specialise  where which header has been found, so that none is looked for twice
    ssa, ...    what makes the graph smaller
    select      operations as instructions, registers not yet chosen
    allocate    registers
    emit        bytes, and the Python line of each instruction

Nothing here talks to the kernel or needs the native module.
"""
