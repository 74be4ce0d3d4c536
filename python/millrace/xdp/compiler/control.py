"""Makes the flow of control simpler: blocks that are one, ways that lead to the same, ends that are
the same.
"""

from __future__ import annotations

from typing import Any

from millrace.xdp.compiler.graph import Access
from millrace.xdp.compiler.ssa import EFFECTS, Block, Finish, Function, Node
from millrace.xdp.maps import Map

#: Blocks of the same shape that each is compared with.
_MOST_COMPARED = 16


def tidy(function: Function) -> bool:
    """Change a function in place; whether anything was changed."""
    changed = False
    while (
        _remove_unreached(function)
        | _same_ways(function)
        | _skip_empty(function)
        | _join(function)
        | _merge_equal(function)
    ):
        changed = True
    return changed


def _remove_unreached(function: Function) -> bool:
    blocks = set(function.blocks())
    changed = False
    for block in blocks:
        for source in [source for source in block.before if source not in blocks]:
            block.cut_from(source)
            changed = True
    return changed


def _same_ways(function: Function) -> bool:
    """A branch whose ways both lead to the same block, with nothing to tell them apart."""
    changed = False
    for block in function.blocks():
        targets = block.finish.targets
        if len(targets) == 2 and targets[0] is targets[1]:
            block.finish = Finish("jump", targets[:1])
            changed = True
    return changed


def _skip_empty(function: Function) -> bool:
    """Let ways to a block that only jumps lead to where it jumps to."""
    changed = False
    users: dict[Node, set[tuple[Block, Block | None]]] | None = None
    for block in function.blocks():
        if block.nodes or block.finish.kind != "jump" or block is function.entry:
            continue
        target = block.finish.targets[0]
        if target is block:
            continue
        if block.phis:
            users = _phi_users(function) if users is None else users
            if any(users.get(phi, set()) - {(target, block)} for phi in block.phis):
                continue
        for source in list(block.before):
            if _redirect(source, block, target):
                changed = True
                for phi in target.phis:
                    if users is not None and source in phi.sources:
                        users.setdefault(phi.of(source), set()).add((target, source))
    return changed


def _phi_users(function: Function) -> dict[Node, set[tuple[Block, Block | None]]]:
    """Where results are used: in which block, and for a phi there, for which way to it."""
    users: dict[Node, set[tuple[Block, Block | None]]] = {}
    for block in function.blocks():
        for node in block.nodes:
            for argument in node.arguments:
                users.setdefault(argument, set()).add((block, None))
        for argument in block.finish.arguments:
            users.setdefault(argument, set()).add((block, None))
        for phi in block.phis:
            for argument, source in zip(phi.arguments, phi.sources, strict=True):
                users.setdefault(argument, set()).add((block, source))
    return users


def _redirect(source: Block, block: Block, target: Block) -> bool:
    """Lead the way from `source` through the empty `block` straight to `target`."""
    values: dict[Node, Node] = {}
    for phi in target.phis:
        value = phi.of(block)
        if value in block.phis:
            value = value.of(source)
        values[phi] = value
    if source in target.before:
        # There is another way already; it must bring the same.
        if any(phi.of(source) is not value for phi, value in values.items()):
            return False
        if target in source.finish.targets and len(source.finish.targets) == 2:
            source.finish = Finish("jump", [target])
            block.cut_from(source)
            return True
        return False
    source.finish.targets = [target if t is block else t for t in source.finish.targets]
    block.cut_from(source)
    target.before.append(source)
    for phi, value in values.items():
        phi.arguments.append(value)
        phi.sources.append(source)
    if not block.before:
        target.cut_from(block)
    return True


def _join(function: Function) -> bool:
    """Make one of a block and the only one it leads to, which nothing else leads to."""
    changed = False
    replaced: dict[Node, Node] = {}
    for block in function.blocks():
        while block.finish.kind == "jump":
            target = block.finish.targets[0]
            if len(target.before) != 1 or target is function.entry or target is block:
                break
            for phi in target.phis:
                replaced[phi] = phi.arguments[0]
            target.phis = []
            for node in target.nodes:
                node.block = block
            block.nodes += target.nodes
            block.finish = target.finish
            for following in block.finish.targets:
                following.before = [block if b is target else b for b in following.before]
                for phi in following.phis:
                    phi.sources = [block if b is target else b for b in phi.sources]
            target.before = []
            changed = True
    if replaced:
        substitute(function, replaced)
    return changed


def substitute(function: Function, replaced: dict[Node, Node]) -> None:
    """Put nodes in the place of others, and theirs where those are replaced too."""

    def now(node: Node) -> Node:
        while node in replaced:
            node = replaced[node]
        return node

    for block in function.blocks():
        for node in (*block.phis, *block.nodes):
            if any(argument in replaced for argument in node.arguments):
                node.arguments = [now(argument) for argument in node.arguments]
        block.finish.arguments = [now(argument) for argument in block.finish.arguments]


def _merge_equal(function: Function) -> bool:
    """Make one of blocks that do the same and go on the same."""
    used_outside = _used_outside(function)
    found: dict[Any, Block] = {}
    changed = False
    for block in reversed(function.blocks()):
        if block is function.entry or block.phis or block in used_outside:
            continue
        key = _signature(block)
        kept = found.setdefault(key, block)
        if kept is block:
            continue
        # One branch may lead to both: it then leads to one.
        for source in set(kept.before) & set(block.before):
            source.finish = Finish("jump", [kept])
            block.before.remove(source)
        for source in list(block.before):
            source.finish.targets = [kept if t is block else t for t in source.finish.targets]
            kept.before.append(source)
        block.before = []
        for target in block.finish.targets:
            target.cut_from(block)
        changed = True
    return changed


def _used_outside(function: Function) -> set[Block]:
    """Blocks with results that others use."""
    blocks = function.blocks()
    found: set[Block] = set()
    for block in blocks:
        for node in block.nodes:
            for argument in node.arguments:
                if argument.block is not None and argument.block is not block:
                    found.add(argument.block)
        for argument in block.finish.arguments:
            if argument.block is not None and argument.block is not block:
                found.add(argument.block)
        for phi in block.phis:
            for argument in phi.arguments:
                if argument.block is not None:
                    found.add(argument.block)
    return found


def _signature(block: Block) -> Any:
    """What a block does, so that equal ones are equal."""
    local = {node: index for index, node in enumerate(block.nodes)}

    def name(node: Node) -> Any:
        return ("local", local[node]) if node in local else ("node", node.number)

    nodes = tuple(
        (
            node.op,
            tuple(name(a) for a in node.arguments),
            _imm_key(node),
        )
        for node in block.nodes
    )
    finish = block.finish
    ways = tuple(
        (target.number, tuple(name(phi.of(block)) for phi in target.phis))
        for target in finish.targets
    )
    arguments = tuple(name(argument) for argument in finish.arguments)
    return nodes, finish.kind, finish.condition, finish.size, arguments, ways


def widen_checks(function: Function) -> bool:
    """Check for all bytes at once where too few of them lead to the same place anyway."""
    changed = False
    for block in function.blocks():
        while block.finish.kind == "check" and _widen(block):
            changed = True
    return changed


def _widen(block: Block) -> bool:
    """Let a check take over a later one on the same pointer."""
    inside, short = block.finish.targets
    pointer = block.finish.arguments[0]
    here = block
    while len(inside.before) == 1 and not any(node.op in EFFECTS for node in inside.nodes):
        finish = inside.finish
        if finish.kind not in ("check", "branch") or short not in finish.targets:
            return False
        if any(phi.of(inside) is not phi.of(block) for phi in short.phis):
            return False
        if finish.kind == "check" and finish.arguments[0] is pointer:
            if finish.targets[1] is not short:
                return False
            block.finish.size = max(block.finish.size, finish.size)
            short.cut_from(inside)
            inside.finish = Finish("jump", finish.targets[:1])
            return True
        here = inside
        inside = next(target for target in finish.targets if target is not short)
        if inside is here:
            return False
    return False


def merge_regions(function: Function) -> bool:
    """Make one of parts of several blocks that do the same and come to the same end."""
    groups: dict[Any, list[Block]] = {}
    for block in reversed(function.blocks()):
        if block is not function.entry and not block.phis and block.nodes:
            shape = tuple((node.op, _imm_key(node)) for node in block.nodes)
            finish = block.finish
            groups.setdefault((shape, finish.kind, finish.condition, finish.size), []).append(block)
    changed = False
    for blocks in groups.values():
        for index, kept in enumerate(blocks):
            for other in blocks[index + 1 : index + 1 + _MOST_COMPARED]:
                if kept.before and other.before and _merge_region(function, kept, other):
                    changed = True
    return changed


def _imm_key(node: Node) -> Any:
    """What an operation is told beside its arguments, so that equal ones are equal."""
    imm = node.imm
    if isinstance(imm, Access):
        return id(imm.map), imm.key, imm.value, imm.flags
    return id(imm) if isinstance(imm, Map) else imm


def _merge_region(function: Function, kept: Block, other: Block) -> bool:
    """Lead what leads to `other` to `kept`, if both parts are the same throughout."""
    if set(kept.before) & set(other.before):
        return False
    match = _Match()
    if not match.blocks(kept, other) or not match.closed(function):
        return False
    for source in list(other.before):
        source.finish.targets = [kept if t is other else t for t in source.finish.targets]
        kept.before.append(source)
    for gone in match.gone:
        gone.before = []
        for target in gone.finish.targets:
            if target not in match.gone and gone in target.before:
                target.cut_from(gone)
    return True


class _Match:
    """Which nodes and blocks of one part are those of another."""

    def __init__(self) -> None:
        self.nodes: dict[Node, Node] = {}
        self.gone: dict[Block, Block] = {}

    def same(self, first: Node, second: Node) -> bool:
        """Whether two nodes mean the same, each in its part."""
        return self.nodes.get(second, second) is first

    def blocks(self, first: Block, second: Block) -> bool:
        """Whether two blocks, and what only they lead to, do the same."""
        if len(first.nodes) != len(second.nodes) or first.phis or second.phis:
            return False
        self.gone[second] = first
        for a, b in zip(first.nodes, second.nodes, strict=True):
            if a.op != b.op or _imm_key(a) != _imm_key(b) or len(a.arguments) != len(b.arguments):
                return False
            if not all(map(self.same, a.arguments, b.arguments)):
                return False
            self.nodes[b] = a
        one, two = first.finish, second.finish
        if (one.kind, one.condition, one.size) != (two.kind, two.condition, two.size):
            return False
        if len(one.arguments) != len(two.arguments):
            return False
        if not all(map(self.same, one.arguments, two.arguments)):
            return False
        return all(
            self._targets(a, b, first, second)
            for a, b in zip(one.targets, two.targets, strict=True)
        )

    def _targets(self, a: Block, b: Block, first: Block, second: Block) -> bool:
        if a is b:
            return all(self.same(phi.of(first), phi.of(second)) for phi in a.phis)
        if b in self.gone or len(a.before) != 1 or len(b.before) != 1:
            return False
        return self.blocks(a, b)

    def closed(self, function: Function) -> bool:
        """Whether what the second part computes is used nowhere else."""
        for block in function.blocks():
            if block in self.gone:
                continue
            used = [argument for node in block.nodes for argument in node.arguments]
            if any(argument in self.nodes for argument in (*used, *block.finish.arguments)):
                return False
            for phi in block.phis:
                for argument, source in zip(phi.arguments, phi.sources, strict=True):
                    if argument in self.nodes and source not in self.gone:
                        return False
        return True
