"""The last changes before instructions are chosen."""

from __future__ import annotations

from millrace.xdp.compiler.control import merge_regions, tidy, widen_checks
from millrace.xdp.compiler.dominance import Dominance
from millrace.xdp.compiler.ssa import (
    EFFECTS,
    Block,
    Finish,
    Function,
    Node,
    remove_unused,
)

_MEMORY_LAST = frozenset(("load", "store", "lookup", "update", "delete", "atomic"))
_FIXED = EFFECTS | {"argument", "helper", "lookup", "phi"}


def finish(function: Function) -> None:
    """Change a function in place."""
    if widen_checks(function):
        tidy(function)
    while _sink(function):
        pass
    _forget_memory(function)
    remove_unused(function)
    tidy(function)
    while merge_regions(function):
        tidy(function)
    remove_unused(function)
    _share_limits(function)
    _return_at_once(function)
    _share_returns(function)


def _sink(function: Function) -> bool:
    """Compute what only one way needs on that way."""
    blocks = function.blocks()
    users = _users(blocks)
    dominance = Dominance(blocks)
    changed = False
    for block in blocks:
        if len(block.finish.targets) != 2:
            continue
        written = False
        for node in reversed(block.nodes):
            written |= node.op in EFFECTS
            if node.op in _FIXED or (node.op == "load" and written):
                continue
            target = _only_way(block, users.get(node, []), dominance)
            if target is not None:
                block.nodes.remove(node)
                target.nodes.insert(0, node)
                node.block = target
                for argument in node.arguments:
                    users[argument].remove(block)
                    users[argument].append(target)
                changed = True
    return changed


def _users(blocks: list[Block]) -> dict[Node, list[Block]]:
    """The blocks where each result is needed; a phi needs it at the end of where it comes from."""
    users: dict[Node, list[Block]] = {}
    for block in blocks:
        for phi in block.phis:
            for argument, source in zip(phi.arguments, phi.sources, strict=True):
                users.setdefault(argument, []).append(source)
        for node in block.nodes:
            for argument in node.arguments:
                users.setdefault(argument, []).append(block)
        for argument in block.finish.arguments:
            users.setdefault(argument, []).append(block)
    return users


def _only_way(block: Block, users: list[Block], dominance: Dominance) -> Block | None:
    """The one of a block's two ways that leads to all users."""
    for target in block.finish.targets:
        if (
            len(target.before) == 1
            and users
            and all(dominance.dominates(target, user) for user in users)
        ):
            return target
    return None


def _forget_memory(function: Function) -> None:
    """Drop what only said which write a read can see."""
    for block in function.blocks():
        for node in block.nodes:
            if node.op in _MEMORY_LAST:
                node.arguments.pop()
        block.nodes = [node for node in block.nodes if node.op not in ("fence", "entered")]


def _share_limits(function: Function) -> None:
    """Where a check computes the address behind some bytes, let who needs that address take it."""
    blocks = function.blocks()
    dominance = Dominance(blocks)
    moved: dict[tuple[Node, int], list[tuple[Node, Block]]] = {}
    for block in blocks:
        for node in block.nodes:
            if node.op == "pconst":
                moved.setdefault((node.arguments[0], node.imm), []).append((node, block))
    replaced: dict[Node, Node] = {}
    for block in blocks:
        finish = block.finish
        if finish.kind != "check":
            continue
        pointer = replaced.get(finish.arguments[0], finish.arguments[0])
        for node, place in moved.get((pointer, finish.size), []):
            if node in replaced or place is block or not dominance.dominates(block, place):
                continue
            if finish.size:
                limit = Node("pconst", [pointer], finish.size, finish.line)
                limit.block = block
                block.nodes.append(limit)
                finish.arguments[0], finish.size = limit, 0
            replaced[node] = finish.arguments[0]
            place.nodes.remove(node)
    for block in blocks:
        for node in (*block.phis, *block.nodes):
            node.arguments = [replaced.get(a, a) for a in node.arguments]
        block.finish.arguments = [replaced.get(a, a) for a in block.finish.arguments]


def _return_at_once(function: Function) -> None:
    """Let each way to a block that returns what was chosen before return that itself."""
    ends: dict[Node, Block] = {}
    for block in function.blocks():
        finish = block.finish
        if finish.kind != "return" or block.nodes or finish.arguments[0] not in block.phis:
            continue
        verdict = finish.arguments[0]
        for source in list(block.before):
            value = verdict.of(source)
            if value.op != "const" or source.finish.targets.count(block) != 1:
                continue
            end = ends.setdefault(value, Block())
            end.finish = Finish("return", [], [value], line=finish.line)
            source.finish.targets = [end if t is block else t for t in source.finish.targets]
            block.cut_from(source)
            if source in end.before:
                source.finish = Finish("jump", [end])
            else:
                end.before.append(source)


def _share_returns(function: Function) -> None:
    """Let blocks that end with the same verdict end in the same place."""
    ends: dict[Node, list[Block]] = {}
    for block in function.blocks():
        if block.finish.kind == "return" and block.finish.arguments[0].op == "const":
            ends.setdefault(block.finish.arguments[0], []).append(block)
    for blocks in ends.values():
        if len(blocks) < 2:
            continue
        alone = next((b for b in blocks if not b.nodes and not b.phis), None)
        shared = alone or Block()
        if alone is None:
            shared.finish = blocks[0].finish
        for block in blocks:
            if block is not shared:
                block.finish = Finish("jump", [shared])
                shared.before.append(block)
