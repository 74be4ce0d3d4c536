"""The last changes before instructions are chosen."""

from __future__ import annotations

from millrace.xdp.compiler.control import tidy
from millrace.xdp.compiler.ssa import EFFECTS, Block, Function, Node, dominators, remove_unused

_MEMORY_LAST = frozenset(("load", "store", "lookup", "update", "delete", "atomic"))
_FIXED = EFFECTS | {"argument", "helper", "lookup", "phi"}


def finish(function: Function) -> None:
    """Change a function in place."""
    while _sink(function):
        pass
    _forget_memory(function)
    remove_unused(function)
    tidy(function)
    remove_unused(function)


def _sink(function: Function) -> bool:
    """Compute what only one way needs on that way."""
    blocks = function.blocks()
    users = _users(blocks)
    parent = dominators(blocks)
    changed = False
    for block in blocks:
        if len(block.finish.targets) != 2:
            continue
        written = False
        for node in reversed(block.nodes):
            written |= node.op in EFFECTS
            if node.op in _FIXED or (node.op == "load" and written):
                continue
            target = _only_way(block, users.get(node, []), parent)
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
    """The blocks where each result is needed; a phi needs it at the end of the block it comes from."""
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


def _only_way(block: Block, users: list[Block], parent: dict[Block, Block]) -> Block | None:
    """The one of a block's two ways that leads to all users."""
    for target in block.finish.targets:
        if (
            len(target.before) == 1
            and users
            and all(_dominates(target, user, parent) for user in users)
        ):
            return target
    return None


def _dominates(first: Block, second: Block, parent: dict[Block, Block]) -> bool:
    while second is not first:
        if second not in parent or parent[second] is second:
            return False
        second = parent[second]
    return True


def _forget_memory(function: Function) -> None:
    """Drop what only said which write a read can see."""
    for block in function.blocks():
        for node in block.nodes:
            if node.op in _MEMORY_LAST:
                node.arguments.pop()
        block.nodes = [node for node in block.nodes if node.op != "fence"]
