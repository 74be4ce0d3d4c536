"""Random programs, from a seed: what the compiler is tested with.

Every program is in the subset. What it does is of no use: it computes, branches, loops, reads and
writes headers and maps, so that two ways to run it can be compared.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: Maps that each program may use. What is declared here is source text.
MAPS = {
    "by_number": "Hash(u32, u64, entries=64)",
    "by_port": "Hash(u16, u32, entries=64)",
    "by_source": "Hash(IPv4, u64, entries=64)",
    "by_host": "Hash(IPv6, u64, entries=64)",
    "by_flow": "Hash((IPv4, u16, u8), (u64, u32), entries=64)",
    "by_mac": "Hash(MAC, i32, entries=64)",
    "recent": "LruHash(u32, u32, entries=1024)",
    "table": "Array(8, u64)",
    "small": "Array(4, i16)",
    "hosts": "Array(4, IPv4)",
    "single": "Array(1, u32)",
    "per_cpu": "PerCpuArray(8, u64)",
    "per_cpu_hash": "PerCpuHash(u8, u64, entries=256)",
    "routes": "LpmTrie(IPv4, u32, entries=64)",
    "wire": "Hash(be16, be32, entries=64)",
    "counter": "Counter()",
}
#: Values that a program finds in them.
CONTENTS = """
by_number[1] = 7
by_number[17] = (1 << 64) - 3
by_port[53] = 1
by_port[80] = 0xFFFFFFFF
by_source["192.0.2.1"] = 5
by_host["2001:db8::1"] = 9
by_flow["192.0.2.1", 53, 17] = (3, 4)
by_mac["02:00:00:00:00:01"] = -5
recent[3] = 3
table[2] = 22
table[5] = 1 << 63
small[0] = -3
hosts[1] = "192.0.2.9"
single[0] = 77
routes["192.0.2.0/24"] = 1
routes["192.0.2.128/25"] = 2
routes["10.0.0.0/8"] = 3
wire[53] = 1
"""

_NUMBER_FIELDS = {
    "eth": ["ethertype"],
    "vlan": ["tci", "pcp", "id", "ethertype"],
    "vlan2": ["tci", "id"],
    "arp": ["operation", "htype", "plen"],
    "ip": ["version", "ihl", "tos", "dscp", "ecn", "total_length", "id", "fragment_offset", "ttl",
           "protocol", "checksum"],
    "ipv6": ["version", "traffic_class", "dscp", "ecn", "flow_label", "payload_length",
             "next_header", "hop_limit"],
    "icmp": ["type", "code", "checksum", "id", "sequence", "rest"],
    "icmpv6": ["type", "code", "checksum", "id", "sequence", "rest"],
    "udp": ["sport", "dport", "length", "checksum"],
    "tcp": ["sport", "dport", "seq", "ack", "data_offset", "flags", "window", "checksum", "urgent"],
}  # fmt: skip
_WRITTEN_FIELDS = {
    "vlan": ["tci", "pcp", "id"],
    "vlan2": ["tci", "id"],
    "arp": ["operation"],
    "ip": ["tos", "dscp", "ecn", "id", "ttl"],
    "ipv6": ["traffic_class", "dscp", "ecn", "flow_label", "hop_limit"],
    "icmp": ["type", "code", "id", "sequence", "rest"],
    "icmpv6": ["type", "code", "id", "sequence", "rest"],
    "udp": ["sport", "dport", "checksum"],
    "tcp": ["sport", "dport", "seq", "ack", "flags", "window", "urgent", "checksum"],
}
_FLAGS = {"vlan": ["dei"], "ip": ["df", "mf"], "tcp": ["fin", "syn", "rst", "psh", "urg", "ece"]}
_WRITTEN_FLAGS = {"vlan": ["dei"], "ip": ["df"], "tcp": ["fin", "syn", "rst", "psh", "cwr"]}
_MACS = ["pkt.eth.src", "pkt.eth.dst", "pkt.arp.sha", "pkt.arp.tha"]
_IPV4S = ["pkt.ip.src", "pkt.ip.dst", "pkt.arp.spa", "pkt.arp.tpa"]
_IPV6S = ["pkt.ipv6.src", "pkt.ipv6.dst"]
_HEADERS = list(_NUMBER_FIELDS)
_REGIONS = ["pkt", "pkt.udp.payload", "pkt.tcp.payload", "pkt.tcp.options", "pkt.ip.options",
            "pkt.ip.payload", "pkt.ipv6.payload", "pkt.icmp.payload"]  # fmt: skip
#: What a program may ask for at once, and the headers that are present then.
_GUARDS = {
    "pkt.ip": ["ip"],
    "pkt.ip and pkt.udp": ["ip", "udp"],
    "pkt.udp and pkt.ip": ["ip", "udp"],
    "pkt.ip and pkt.tcp": ["ip", "tcp"],
    "pkt.icmp": ["ip", "icmp"],
    "pkt.ipv6": ["ipv6"],
    "pkt.ipv6 and pkt.udp": ["ipv6", "udp"],
    "pkt.tcp and pkt.ipv6": ["ipv6", "tcp"],
    "pkt.icmpv6": ["ipv6", "icmpv6"],
    "pkt.udp": ["udp"],
    "pkt.tcp": ["tcp"],
    "pkt.arp": ["arp"],
    "pkt.vlan": ["vlan"],
    "pkt.vlan2": ["vlan", "vlan2"],
}
_NUMBERS = [0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 53, 64, 80, 100, 127, 128, 255, 256, 1000, 0x800,
            65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1]  # fmt: skip
_VERDICTS = ["PASS", "DROP", "TX", "ABORTED"]


@dataclass
class Scope:
    """What a piece of program may use."""

    #: Variables that have a value, and those that loops count in.
    numbers: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    #: Headers that are present.
    headers: list[str] = field(default_factory=lambda: ["eth"])
    loops: int = 0

    def inner(self) -> Scope:
        return Scope(list(self.numbers), list(self.flags), list(self.headers), self.loops)


class Generator:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.names = 0
        self.used: set[str] = set()
        self.helpers: list[tuple[str, int]] = []
        self.raw_writes = self.random.random() < 0.25
        self.depth = self.random.randint(2, 4)

    def one(self, *choices: object) -> object:
        return self.random.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    # Expressions

    def number(self, scope: Scope, depth: int) -> str:
        """A number."""
        roll = self.random.random()
        if depth <= 0 or roll < 0.18:
            return self.leaf(scope)
        if roll < 0.34:
            return self.field_value(scope)
        if roll < 0.58:
            return self.binary(scope, depth)
        inner = depth - 1
        if roll < 0.62:
            return f"({self.one('-', '~')}{self.number(scope, inner)})"
        if roll < 0.67:
            width = self.one("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64")
            return f"{width}({self.number(scope, inner)})"
        if roll < 0.71:
            chosen = self.one("min", "max")
            return f"{chosen}({self.number(scope, inner)}, {self.number(scope, inner)})"
        if roll < 0.73:
            return f"abs({self.number(scope, inner)})"
        if roll < 0.77:
            test = self.condition(scope, inner)
            return f"({self.number(scope, inner)} if {test} else {self.number(scope, inner)})"
        if roll < 0.87:
            return self.map_value(scope, inner)
        if roll < 0.92:
            return self.raw_value(scope)
        if roll < 0.94 and self.helpers:
            name, count = self.random.choice(self.helpers)
            arguments = ", ".join(["pkt", *(self.number(scope, inner) for _ in range(count))])
            return f"{name}({arguments})"
        if roll < 0.96:
            return str(self.one(f"int({self.ipv4(scope)})", f"int({self.mac(scope)})"))
        if roll < 0.98:
            return str(
                self.one("pkt.len", f"len({self.region(scope)})", "pkt.queue", "pkt.ifindex")
            )
        return f"bool({self.condition(scope, inner)})"

    def leaf(self, scope: Scope) -> str:
        if scope.numbers and self.chance(0.65):
            return self.random.choice(scope.numbers)
        return str(self.random.choice(_NUMBERS))

    def field_value(self, scope: Scope) -> str:
        header = self.header(scope)
        return f"pkt.{header}.{self.random.choice(_NUMBER_FIELDS[header])}"

    def header(self, scope: Scope) -> str:
        """A header: nearly always one that is present, since the others end the program."""
        if self.chance(0.015):
            return self.random.choice(_HEADERS)
        return self.random.choice(scope.headers)

    def present(self, scope: Scope, values: list[str]) -> list[str]:
        """Those values that are fields of headers that are present."""
        if self.chance(0.01):
            return values
        return [value for value in values if value.split(".")[1] in scope.headers]

    def mac(self, scope: Scope) -> str:
        return self.random.choice(self.present(scope, _MACS))

    def ipv6(self, scope: Scope) -> str | None:
        found = self.present(scope, _IPV6S)
        return self.random.choice(found) if found else None

    def region(self, scope: Scope) -> str:
        found = [name for name in _REGIONS if name == "pkt" or name.split(".")[1] in scope.headers]
        return self.random.choice(found)

    def binary(self, scope: Scope, depth: int) -> str:
        operator = str(self.one("+", "+", "-", "-", "*", "//", "%", "&", "&", "|", "^", "<<", ">>"))
        left = self.number(scope, depth - 1)
        if operator in ("<<", ">>") and self.chance(0.8):
            right = str(self.random.choice([0, 1, 2, 3, 4, 8, 16, 31, 32, 63, 64]))
        elif operator in ("//", "%") and self.chance(0.7):
            right = str(self.random.choice([1, 2, 3, 7, 10, 16, 256, 1000, -3, -8]))
        else:
            right = self.number(scope, depth - 1)
            if right.lstrip("(-~").rstrip(")").isdigit():
                # Of two constants Python may make a number that is refused.
                left = self.field_value(scope)
        if left.lstrip("(-~").rstrip(")").isdigit():
            left = self.field_value(scope)
        if operator in ("//", "%") and right == "0":
            right = "3"
        if operator in ("<<", ">>") and not right.isdigit() and self.chance(0.9):
            right = f"({right} & 71)"
        if operator in ("<<", ">>") and right.startswith("(~"):
            right = "3"
        return f"({left} {operator} {right})"

    def map_value(self, scope: Scope, depth: int) -> str:
        name, key = self.keyed(scope, depth)
        if name in ("routes", "by_number", "by_port", "recent") and self.chance(0.3):
            return f"{name}.get({key}, {self.random.choice([0, 1, 99])})"
        return f"{name}[{key}][{self.one(0, 1)}]" if name == "by_flow" else f"{name}[{key}]"

    def keyed(self, scope: Scope, depth: int) -> tuple[str, str]:
        """A map with numbers as values, and a key for it."""
        name = str(
            self.one("by_number", "by_port", "by_source", "by_host", "by_flow", "by_mac", "recent",
                     "table", "small", "single", "per_cpu", "per_cpu_hash", "routes", "wire")
        )  # fmt: skip
        if name == "by_host" and "ipv6" not in scope.headers:
            name = "by_number"
        if name in ("by_source", "by_flow", "routes") and not {"ip", "arp"} & set(scope.headers):
            name = "per_cpu"
        return name, self.key(name, scope, depth)

    def index(self, scope: Scope, entries: int) -> str:
        """An index that is rarely outside an array, which is an error of the program."""
        if not self.chance(0.1):
            return str(self.random.randrange(entries))
        return f"({self.field_value(scope)} & {2 * entries - 1})"

    def key(self, name: str, scope: Scope, depth: int) -> str:
        self.used.add(name)
        small = self.number(scope, min(depth, 1))
        match name:
            case "by_source" | "routes":
                return self.ipv4(scope)
            case "by_host":
                return str(self.ipv6(scope))
            case "by_mac":
                return self.mac(scope)
            case "by_flow":
                return f"{self.ipv4(scope)}, {self.field_value(scope)}, u8({small})"
            case "table" | "per_cpu":
                return str(self.one(f"{small} & 7", f"{small} % 8", 3, 5, self.index(scope, 8)))
            case "small" | "hosts":
                return str(self.one(f"{small} & 3", 0, 2, self.index(scope, 4)))
            case "single":
                return str(self.one(0, 0, 0, self.index(scope, 1)))
            case "by_number" | "recent":
                return str(self.one(f"u32({small})", f"{small} & 15", self.field_value(scope)))
            case "per_cpu_hash":
                return str(self.one(f"u8({small})", 53, self.field_value(scope)))
        return str(self.one(f"u16({small})", 53, self.field_value(scope)))

    def ipv4(self, scope: Scope) -> str:
        found = self.present(scope, _IPV4S)
        if not found or self.chance(0.15):
            self.used.add("hosts")
            return f"hosts[{self.random.randrange(4)}]"
        return self.random.choice(found)

    def raw_value(self, scope: Scope) -> str:
        region = self.region(scope)
        width = self.one("u8", "u16", "u32", "u64")
        if self.chance(0.6) or not scope.numbers:
            offset = str(self.random.choice([0, 1, 2, 4, 6, 8, 12, 13, 16, 20, 30, 47]))
        else:
            mask = self.random.choice([3, 7, 15, 31])
            offset = f"({self.leaf(scope)} & {mask})"
            if self.chance(0.1):
                offset = self.random.choice(scope.numbers)
        return f"{region}[{offset}]" if self.chance(0.5) else f"{region}.{width}({offset})"

    def condition(self, scope: Scope, depth: int) -> str:
        """Something that is true or false."""
        roll = self.random.random()
        if depth <= 0 or roll < 0.3:
            asked = f"pkt.{self.random.choice(_HEADERS)}"
            return str(self.one(asked, *self.simple(scope)))
        inner = depth - 1
        if roll < 0.5:
            joined = self.one("and", "or")
            parts = [self.condition(scope, inner) for _ in range(self.random.randint(2, 3))]
            return f"({f' {joined} '.join(parts)})"
        if roll < 0.56:
            return f"(not {self.condition(scope, inner)})"
        if roll < 0.8:
            sign = self.one("==", "!=", "<", "<=", ">", ">=")
            left, right = self.number(scope, inner), self.number(scope, inner)
            if self.chance(0.1):
                return f"({left} <= {self.field_value(scope)} {sign} {right})"
            return f"({left} {sign} {right})"
        return str(self.one(*self.membership(scope, inner)))

    def simple(self, scope: Scope) -> list[str]:
        found = [f"{self.field_value(scope)} == {self.random.choice(_NUMBERS)}"]
        for header in set(scope.headers) & set(_FLAGS):
            found.append(f"pkt.{header}.{self.random.choice(_FLAGS[header])}")
        return [*sorted(found), *scope.flags[-2:]]

    def membership(self, scope: Scope, depth: int) -> list[str]:
        number = self.number(scope, min(depth, 1))
        name, key = self.keyed(scope, depth)
        found = [
            f"({number} in (1, 17, 53, 80))",
            f"({self.field_value(scope)} in range(10, 1000))",
            f"({self.field_value(scope)} not in (6, 17))",
            f'({self.ipv4(scope)} in ("192.0.2.0/24", "10.0.0.1"))',
            f'({self.ipv4(scope)} == "192.0.2.1")',
            f'({self.mac(scope)} == "02:00:00:00:00:01")',
            f"({self.mac(scope)} != {self.mac(scope)})",
            f"(({self.field_value(scope)}, {number}) == (17, {self.field_value(scope)}))",
        ]
        if "ipv6" in scope.headers:
            found.append(f'({self.ipv6(scope)} in ("2001:db8::/32", "fe80::1"))')
            found.append(f"({self.ipv6(scope)} == {self.ipv6(scope)})")
        if name not in ("table", "small", "single", "per_cpu"):
            key = f"({key})" if "," in key else key
            found.append(f"({key} in {name})")
            found.append(f"({key} not in {name})")
        return found

    # Statements

    def put(self, level: int, text: str) -> None:
        self.lines.append("    " * level + text)

    def name(self, what: str) -> str:
        self.names += 1
        return f"{what}{self.names}"

    def block(self, scope: Scope, level: int, size: int) -> bool:
        """Some statements; whether a way leads out of them at their end."""
        return all(self.statement(scope, level) for _ in range(size))

    def statement(self, scope: Scope, level: int) -> bool:
        roll = self.random.random()
        if roll < 0.22:
            self.assignment(scope, level)
        elif roll < 0.42 and level < 5:
            return self.branch(scope, level)
        elif roll < 0.5 and level < 4 and scope.loops < 2:
            self.loop(scope, level)
        elif roll < 0.66:
            self.map_write(scope, level)
        elif roll < 0.86:
            self.header_write(scope, level)
        elif roll < 0.9 and scope.loops and level > 2:
            self.put(level, str(self.one("break", "continue")))
            return False
        elif roll < 0.94 and level > 1:
            self.put(level, f"return {self.verdict(scope)}")
            return False
        else:
            self.assignment(scope, level)
        return True

    def verdict(self, scope: Scope) -> str:
        if self.chance(0.2):
            test = self.condition(scope, 1)
            return f"{self.random.choice(_VERDICTS)} if {test} else {self.random.choice(_VERDICTS)}"
        return self.random.choice(_VERDICTS)

    def assignment(self, scope: Scope, level: int) -> None:
        plain = [name for name in scope.numbers if name.startswith("n")]
        if plain and self.chance(0.45):
            name = self.random.choice(plain)
            operator = self.one("+", "-", "^", "&", "|", "*", "//", "%", "")
            value = self.number(scope, self.depth)
            if operator in ("//", "%") and value.lstrip("(-~").rstrip(")") == "0":
                value = "7"
            self.put(level, f"{name} {operator}= {value}")
        elif self.chance(0.2):
            name = self.name("b")
            self.put(level, f"{name} = {self.condition(scope, self.depth)}")
            scope.flags.append(name)
        elif self.chance(0.1):
            first, second = self.name("n"), self.name("n")
            values = f"{self.number(scope, 2)}, {self.number(scope, 2)}"
            self.put(level, f"{first}, {second} = {values}")
            scope.numbers += [first, second]
        else:
            name = self.name("n")
            self.put(level, f"{name} = {self.number(scope, self.depth)}")
            scope.numbers.append(name)

    def branch(self, scope: Scope, level: int) -> bool:
        inner = scope.inner()
        if self.chance(0.45):
            guard = self.random.choice(list(_GUARDS))
            inner.headers += _GUARDS[guard]
            if self.chance(0.3):
                guard = f"{guard} and {self.condition(inner, 1)}"
            self.put(level, f"if {guard}:")
        else:
            self.put(level, f"if {self.condition(scope, self.depth)}:")
        goes_on = self.block(inner, level + 1, self.random.randint(1, 4))
        if self.chance(0.3):
            self.put(level, f"elif {self.condition(scope, self.depth)}:")
            goes_on |= self.block(scope.inner(), level + 1, self.random.randint(1, 3))
        if self.chance(0.4):
            self.put(level, "else:")
            goes_on |= self.block(scope.inner(), level + 1, self.random.randint(1, 3))
        else:
            goes_on = True
        return goes_on

    def loop(self, scope: Scope, level: int) -> None:
        inner = scope.inner()
        name = self.name("k")
        turns = self.random.choice(
            [
                "range(3)",
                "range(1, 9, 2)",
                "range(4, 0, -1)",
                "range(40)",
                f"range(min({self.field_value(scope)}, 12))",
                f"range({self.field_value(scope)} & 7)",
                "(1, 17, 53)",
            ]
        )
        self.put(level, f"for {name} in {turns}:")
        inner.loops += 1
        inner.numbers.append(name)
        self.block(inner, level + 1, self.random.randint(1, 3))

    def map_write(self, scope: Scope, level: int) -> None:
        if self.chance(0.12):
            self.used.add("counter")
            self.put(level, f"counter.add({self.number(scope, 1)})")
            return
        name, key = self.keyed(scope, 1)
        removable = name not in ("table", "small", "single", "per_cpu")
        value = self.number(scope, 2)
        if name == "by_flow":
            text = str(self.one(
                f"{name}[{key}] = {value}, {self.number(scope, 1)}",
                f"{name}[{key}][{self.one(0, 1)}] {self.one('+', '-', '|')}= {value}",
            ))  # fmt: skip
        elif removable and self.chance(0.15):
            text = f"del {name}[{key}]"
        elif self.chance(0.35):
            text = f"{name}[{key}] = {value}"
        else:
            operator = str(self.one("+", "+", "+", "-", "|", "&", "^", "*", "//", "%", "<<", ">>"))
            if operator in ("//", "%", "<<", ">>"):
                value = str(self.random.choice([1, 2, 3, 7, 16]))
            text = f"{name}[{key}] {operator}= {value}"
        self.put(level, text)

    def header_write(self, scope: Scope, level: int) -> None:
        roll = self.random.random()
        written = [header for header in _WRITTEN_FIELDS if header in scope.headers]
        flagged = [header for header in _WRITTEN_FLAGS if header in scope.headers]
        addresses = self.present(scope, _IPV4S)
        if roll < 0.4 and written:
            header = self.random.choice(written)
            name = self.random.choice(_WRITTEN_FIELDS[header])
            operator = self.one("", "", "+", "-", "^")
            text = f"pkt.{header}.{name} {operator}= {self.number(scope, 2)}"
        elif roll < 0.5 and flagged:
            header = self.random.choice(flagged)
            name = self.random.choice(_WRITTEN_FLAGS[header])
            text = f"pkt.{header}.{name} = {self.condition(scope, 2)}"
        elif roll < 0.65 and addresses:
            source = self.one(
                self.ipv4(scope), '"192.0.2.77"', f"u32({self.number(scope, 1)})", self.ipv4(scope)
            )
            text = f"{self.random.choice(addresses)} = {source}"
        elif roll < 0.72:
            text = f"{self.mac(scope)} = {self.one(self.mac(scope), repr('02:00:00:00:00:09'))}"
        elif roll < 0.78 and "ipv6" in scope.headers:
            value = self.one(self.ipv6(scope), repr("2001:db8::5"))
            text = f"{self.ipv6(scope)} = {value}"
        elif roll < 0.9:
            pairs = ["eth.src eth.dst", "ip.src ip.dst", "udp.sport udp.dport",
                     "tcp.sport tcp.dport", "ipv6.src ipv6.dst"]  # fmt: skip
            pairs = [pair for pair in pairs if pair.split(".")[0] in scope.headers]
            a, b = self.random.choice(pairs).split()
            text = f"pkt.{a}, pkt.{b} = pkt.{b}, pkt.{a}"
        elif self.raw_writes:
            region = self.region(scope)
            offset = self.one(self.random.randrange(40), f"({self.leaf(scope)} & 15)")
            value = self.number(scope, 1)
            width = self.one("u8", "u16", "u32", "u64")
            text = str(self.one(
                f"{region}[{offset}] = {value}", f"{region}.set_{width}({offset}, {value})"
            ))  # fmt: skip
        else:
            self.assignment(scope, level)
            return
        self.put(level, text)

    # The whole

    def helper(self) -> None:
        name = self.name("helper")
        count = self.random.randint(1, 2)
        parameters = [f"n_{name}_{index}" for index in range(count)]
        self.put(0, f"def {name}(pkt, {', '.join(parameters)}):")
        scope = Scope(list(parameters))
        if self.chance(0.6):
            self.put(1, f"if {self.condition(scope, 2)}:")
            self.put(2, f"return {self.number(scope, 2)}")
        if self.chance(0.4):
            self.map_write(scope, 1)
        self.put(1, f"return {self.number(scope, 2)}")
        self.put(0, "")
        self.helpers.append((name, count))

    def program(self) -> str:
        """The source of a module with a program called `program`."""
        for _ in range(self.random.randint(0, 2)):
            self.helper()
        options = ", ".join(
            [
                f"vlan={self.random.choice([0, 1, 2, 2])}",
                f"extensions={self.random.choice([0, 0, 3])}",
                f"on_error={self.random.choice(_VERDICTS)}",
                f"counters={self.chance(0.2)}",
            ]
        )
        self.put(0, f"@xdp({options})")
        self.put(0, "def program(pkt):")
        scope = Scope()
        if self.chance(0.5):
            guard = self.random.choice(list(_GUARDS))
            self.put(1, f"if not ({guard}):")
            self.put(2, f"return {self.random.choice(_VERDICTS)}")
            scope.headers += _GUARDS[guard]
        if self.block(scope, 1, self.random.randint(2, 9)):
            self.put(1, f"return {self.verdict(scope)}")
        maps = [f"{name} = {MAPS[name]}" for name in MAPS if name in self.used]
        contents = [
            line for line in CONTENTS.split("\n") if line.split("[")[0] in self.used and line
        ]
        head = ["from millrace.xdp import *", "", *maps, *contents, "", ""]
        return "\n".join([*head, *self.lines]) + "\n"


def program(seed: int) -> str:
    """The source of a random module with a program called `program`."""
    return Generator(seed).program()
