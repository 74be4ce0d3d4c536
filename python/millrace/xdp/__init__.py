"""XDP programs written in Python: compiled to eBPF here, with neither clang nor LLVM.

    import millrace
    from millrace.xdp import DROP, PASS, Hash, IPv4

    dropped = Hash(IPv4)

    @millrace.xdp
    def shield(pkt):
        if pkt.udp and pkt.udp.dport == 9:
            dropped[pkt.ip.src] += 1
            return DROP
        return PASS

    with shield.attach("eth1"):
        ...
    print(dropped.items())

The module itself is the decorator. What a program may contain is told in docs/xdp.md.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from millrace.xdp.builtins import cpu, now, random, redirect
from millrace.xdp.errors import CompileError, VerifierError
from millrace.xdp.headers import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG
from millrace.xdp.link import Attached, Link, Statistics, attached, open_link, timing
from millrace.xdp.maps import (
    Array,
    Counter,
    CpuMap,
    DevMap,
    Hash,
    LpmTrie,
    LruHash,
    LruPerCpuHash,
    PerCpuArray,
    PerCpuHash,
    XskMap,
)
from millrace.xdp.program import Program, Run, xdp
from millrace.xdp.types import (
    MAC,
    IPv4,
    IPv6,
    be16,
    be32,
    be64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from millrace.xdp.verdict import ABORTED, DROP, PASS, REDIRECT, TX, Verdict

__all__ = [
    "ABORTED",
    "ACK",
    "CWR",
    "DROP",
    "ECE",
    "FIN",
    "MAC",
    "PASS",
    "PSH",
    "REDIRECT",
    "RST",
    "SYN",
    "TX",
    "URG",
    "Array",
    "Attached",
    "CompileError",
    "Counter",
    "CpuMap",
    "DevMap",
    "Hash",
    "IPv4",
    "IPv6",
    "Link",
    "LpmTrie",
    "LruHash",
    "LruPerCpuHash",
    "PerCpuArray",
    "PerCpuHash",
    "Program",
    "Run",
    "Statistics",
    "Verdict",
    "VerifierError",
    "XskMap",
    "attached",
    "be16",
    "be32",
    "be64",
    "cpu",
    "i8",
    "i16",
    "i32",
    "i64",
    "now",
    "open_link",
    "random",
    "redirect",
    "timing",
    "u8",
    "u16",
    "u32",
    "u64",
    "xdp",
]


class _Decorator(ModuleType):
    """A module that can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return xdp(*arguments, **options)


sys.modules[__name__].__class__ = _Decorator
