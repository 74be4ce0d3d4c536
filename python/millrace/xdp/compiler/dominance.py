"""Which blocks every way to a block leads through."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.xdp.compiler.ssa import Block


class Dominance:
    """The dominator tree of blocks that are given in an order in which each comes after one that it
    is reached from (Georgiadis, "Linear-Time Algorithms for Dominators", 2005, section 2.2.2).
    """

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        #: The closest block that every way to a block goes through; the first has itself.
        self.parent: dict[Block, Block] = {}
        #: The blocks that each is the parent of, in their order.
        self.children: dict[Block, list[Block]] = {block: [] for block in blocks}
        self._find()
        for block in blocks[1:]:
            self.children[self.parent[block]].append(block)
        self._first: dict[Block, int] = {}
        self._last: dict[Block, int] = {}
        self._number()

    def dominates(self, first: Block, second: Block) -> bool:
        """Whether every way to the second leads through the first, or both are the same."""
        return self._first[first] <= self._first[second] <= self._last[first]

    def _find(self) -> None:
        order: list[Block] = []
        number: dict[Block, int] = {}
        above: list[int] = []
        waiting = [(self.blocks[0], 0)]
        while waiting:
            block, source = waiting.pop()
            if block in number:
                continue
            number[block] = len(order)
            above.append(source)
            order.append(block)
            waiting += [(target, number[block]) for target in reversed(block.finish.targets)]
        count = len(order)
        label, semi = list(range(count)), list(range(count))
        ancestor, idom = list(above), list(above)
        for current in range(count - 1, 0, -1):
            for source_block in order[current].before:
                if source_block not in number:
                    continue
                best = self._evaluate(number[source_block], current, ancestor, label, semi)
                semi[current] = min(semi[current], semi[best])
            label[current] = current
        for current in range(1, count):
            found = idom[current]
            while found > semi[current]:
                found = idom[found]
            idom[current] = found
        self.parent = {order[i]: order[idom[i]] for i in range(count)}

    @staticmethod
    def _evaluate(
        start: int, current: int, ancestor: list[int], label: list[int], semi: list[int]
    ) -> int:
        """The label with the least semidominator on the way up from `start`, as far as that has
        been worked on; the way is shortened.
        """
        if start <= current:
            return start
        way = [start]
        while ancestor[way[-1]] > current:
            way.append(ancestor[way[-1]])
        for step in range(len(way) - 2, -1, -1):
            here, upper = way[step], way[step + 1]
            if semi[label[upper]] < semi[label[here]]:
                label[here] = label[upper]
            ancestor[here] = ancestor[upper]
        return label[start]

    def _number(self) -> None:
        count = 0
        stack: list[tuple[Block, bool]] = [(self.blocks[0], False)]
        while stack:
            block, done = stack.pop()
            if done:
                self._last[block] = count - 1
                continue
            self._first[block] = count
            count += 1
            stack.append((block, True))
            stack += [(child, False) for child in reversed(self.children[block])]
