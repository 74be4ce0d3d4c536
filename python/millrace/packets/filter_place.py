"""Where in an expression an error is, which libpcap does not say.

An error that names a word is where the word is. For all others the expression is cut after more and
more of its words, and each beginning completed in every way that could follow: the first word after
which nothing helps is where it went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN = re.compile(r"[A-Za-z0-9_.:\\-]+(?:/[0-9]+)?|&&|\|\||<<|>>|[<>!=]=|\S")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"|\b(\d+)\b|address (\S+)")

#: The words of pcap-filter(7). Others are names, which libpcap would look up.
_KEYWORDS = frozenset(
    word
    for line in (
        "host net port portrange src dst proto protochain gateway mask ether fddi tr wlan ip",
        "ip6 arp rarp tcp udp sctp icmp icmp6 igmp igrp pim vrrp carp ah esp atalk aarp",
        "decnet lat sca moprc mopdl iso esis isis clnp stp ipx netbeui l1 l2 iih lsp snp csnp",
        "psnp broadcast multicast less greater inbound outbound vlan mpls pppoed pppoes",
        "geneve llc link radio ra ta addr1 addr2 addr3 addr4 type subtype dir ifname on rset",
        "ruleset rnr rulenum srnr subrulenum reason action ifindex and or not len byte",
    )
    for word in line.split()
)
#: What a word after one of these may be: a name of a service or of a protocol.
_BEFORE_NUMBERS = frozenset({"port", "portrange", "proto", "protochain"})

#: What may follow a beginning, in one of its parts.
_COMPLETIONS = (
    "",
    " 1",
    " 80",
    " 1.2.3.4",
    " 1-2",
    "2",
    " ip",
    " tcp",
    " host 1.2.3.4",
    " port 80",
    " 00:00:00:00:00:00",
    " ::1",
    " mask 255.255.255.0",
    " = 1",
    " 1 = 1",
    "] = 1",
    "0] = 1",
    " 1] = 1",
    "[0] = 1",
    " mgt",
    " s7",
)


#: A longer expression is not tried out: libpcap may take seconds for one.
_LONGEST = 2000


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


def place_of_error(expression: str, reason: str, compiles: Callable[[str], bool]) -> int | None:
    """The place of the word at which `expression` is wrong, `reason` being what libpcap says.

    `compiles` asks libpcap about another expression. The length of `expression`: it ends too early.
    None: there is no such place.
    """
    if "rejects all packets" in reason or not expression.strip():
        return None
    tokens = [_Token(m[0], m.start(), m.end()) for m in _TOKEN.finditer(expression)]
    named = _named(expression, tokens, reason)
    if named is not None or len(expression) > _LONGEST:
        return named
    good, bad = 0, len(tokens) + 1
    # Whatever begins a good beginning is good, so the first that is not is found by halving.
    while bad - good > 1:
        middle = (good + bad) // 2
        if _may_go_on(tokens[:middle], compiles):
            good = middle
        else:
            bad = middle
    return len(expression) if bad > len(tokens) else tokens[bad - 1].start


def _named(expression: str, tokens: list[_Token], reason: str) -> int | None:
    """The place of what the reason names, if the expression has it once."""
    for found in _QUOTED.finditer(reason):
        word = next(group for group in found.groups() if group)
        places = [token.start for token in tokens if token.text == word]
        if not places and expression.count(word) == 1:
            places = [expression.index(word)]
        if len(places) == 1:
            return places[0]
    return None


def _may_go_on(tokens: list[_Token], compiles: Callable[[str], bool]) -> bool:
    """Whether something that starts like this is an expression."""
    beginning = _without_names(tokens)
    open_now = sum((token.text == "(") - (token.text == ")") for token in tokens)
    closing = " )" * max(open_now, 0)
    for completion in _COMPLETIONS:
        if compiles(beginning + completion + closing):
            return True
        if closing and compiles(beginning + completion.replace(" = 1", "") + closing + " = 1"):
            return True
    return False


def _without_names(tokens: list[_Token]) -> str:
    """The text of the tokens, in which nothing is left that would have to be looked up."""
    text = ""
    before = ""
    for token in tokens:
        shown = token.text
        is_name = (
            shown.isascii() and shown[0].isalpha() and ":" not in shown and shown not in _KEYWORDS
        )
        if is_name and before in _BEFORE_NUMBERS:
            shown = "80"
        elif is_name and before in ("host", "net", "gateway", "src", "dst", "and", "or", "not", ""):
            shown = "1.2.3.4"
        text += " " * (token.start > 0 and bool(text)) + shown
        before = token.text
    return text
