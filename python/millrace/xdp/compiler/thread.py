"""Jumps past branches whose outcome is known on the way to them.

`ok = a and b` followed by `if ok` sets a register to 0 or 1 and tests it: each way that set it goes
straight to where the test leads.
"""

from __future__ import annotations

from millrace.xdp.compiler.graph import Block, Branch, Check, Graph, Jump, Query, Return, targets

#: Operations of the tested block that each way may do for itself.
_MOST_OPERATIONS = 6
_MOST_ROUNDS = 16
_COPIED = ("const", "copy", "add", "sub", "and", "or", "xor", "shl", "shr", "sar", "swap", "sext")
MOST = (1 << 64) - 1


def thread(program: Graph) -> None:
    """Change a graph in place."""
    for _ in range(_MOST_ROUNDS):
        blocks = _reachable(program.entry)
        before: dict[Block, list[Block]] = {block: [] for block in blocks}
        for block in blocks:
            for target in targets(block.end):
                before[target].append(block)
        changed = False
        for block in blocks:
            changed |= _shorten(block, before)
        if not changed:
            return


def _reachable(entry: Block) -> list[Block]:
    found, seen = [entry], {entry}
    for block in found:
        for target in targets(block.end):
            if target not in seen:
                seen.add(target)
                found.append(target)
    return found


def _shorten(block: Block, before: dict[Block, list[Block]]) -> bool:
    """Let each way out of a block skip the branch it leads to, where its outcome is known."""
    changed = False
    match block.end:
        case Jump(target=target):
            way = _beyond(block, target, before)
            if way is not None:
                block.end = Jump(way)
                _note(block, way, before)
                changed = True
        case Branch(yes=yes, no=no) | Check(yes=yes, no=no) | Query(yes=yes, no=no):
            first, second = _beyond(block, yes, before), _beyond(block, no, before)
            if first is not None:
                block.end.yes = first
                _note(block, first, before)
            if second is not None:
                block.end.no = second
                _note(block, second, before)
            changed = first is not None or second is not None
        case Return() | None:
            pass
    return changed


def _note(block: Block, way: Block, before: dict[Block, list[Block]]) -> None:
    """A block is reached from one more. That an old way is gone may be known later."""
    if way not in before:
        before[way] = []
        for target in targets(way.end):
            before[target].append(way)
    before[way].append(block)


def _beyond(block: Block, target: Block, before: dict[Block, list[Block]]) -> Block | None:
    """Where a way from one block to another leads in the end, if that is known."""
    if target is block or target.forgets:
        return None
    if not target.operations and isinstance(target.end, Jump) and target.end.target is not target:
        return target.end.target
    end = target.end
    if not isinstance(end, Branch) or len(target.operations) > _MOST_OPERATIONS:
        return None
    if any(operation.op not in _COPIED for operation in target.operations):
        return None
    left, right = (_known(side, block, target, before) for side in (end.left, end.right))
    if left is not None and right is not None:
        outcome: bool | None = decide(end.condition, left, right)
    elif right is not None and not target.operations:
        outcome = _decided_before(end, right, block, target, before)
    else:
        return None
    if outcome is None:
        return None
    way = end.yes if outcome else end.no
    if way is target:
        return None
    # What it did on the way it must still do.
    return Block(list(target.operations), Jump(way)) if target.operations else way


#: How far back a way is followed to a branch that decided the same.
_MOST_STEPS = 4


def _decided_before(
    asked: Branch,
    constant: int,
    block: Block,
    target: Block,
    before: dict[Block, list[Block]],
    steps: int = _MOST_STEPS,
) -> bool | None:
    """The outcome of a branch on a register and a constant, where every way to it has come through
    a branch on the same.
    """
    end = block.end
    if isinstance(end, Branch) and (end.condition, end.left) == (asked.condition, asked.left):
        other = _known(end.right, block, target, before)
        if other == constant and end.yes is not end.no and target in (end.yes, end.no):
            return end.yes is target
    sources = before.get(block, [])
    if steps == 0 or not sources:
        return None
    if any(operation.target == asked.left for operation in block.operations):
        return None
    found = {
        _decided_before(asked, constant, source, block, before, steps - 1) for source in sources
    }
    return found.pop() if len(found) == 1 else None


def decide(condition: str, left: int, right: int) -> bool:
    """The outcome of a branch's condition on two numbers of 64 bits."""
    match condition:
        case "eq":
            return left == right
        case "ne":
            return left != right
        case "ult":
            return left < right
        case "ule":
            return left <= right
        case "slt":
            return signed(left) < signed(right)
        case "sle":
            return signed(left) <= signed(right)
        case "test":
            return left & right != 0
    raise AssertionError(condition)


def signed(value: int) -> int:
    """64 bits as a number with a sign."""
    return value - (1 << 64) if value >> 63 else value


def _known(
    register: int, block: Block, target: Block, before: dict[Block, list[Block]]
) -> int | None:
    """A register's value at the end of `target`, reached from `block`, where it is a constant."""
    way = [target, block]
    while len(way) < 12 and len(before.get(way[-1], ())) == 1:
        way.append(before[way[-1]][0])
    for step in way:
        for operation in reversed(step.operations):
            if operation.target != register:
                continue
            if operation.op == "const":
                return int(operation.imm)
            if operation.op != "copy":
                return None
            register = operation.arguments[0]
    return None
