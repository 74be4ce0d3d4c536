"""Expressions: from Python's syntax tree to the typed tree. Statements are in `frontend`."""

from __future__ import annotations

import ast

from millrace.xdp.compiler import tree
from millrace.xdp.compiler.calls import Calls

_REFUSED: dict[type[ast.expr], str] = {
    ast.Lambda: "write a function with def at the level of the module and call it",
    ast.Dict: "use a map: Hash(key, value) at the level of the module",
    ast.ListComp: "write a for loop",
    ast.SetComp: "write a for loop",
    ast.DictComp: "write a for loop",
    ast.GeneratorExp: "write a for loop",
    ast.Await: "a program never waits",
    ast.Yield: "a program never waits",
    ast.YieldFrom: "a program never waits",
    ast.JoinedStr: "a program has no text; count in a map and read it from Python",
    ast.NamedExpr: "assign in a statement of its own",
    ast.Starred: "write the values out",
    ast.List: "use a tuple, or an Array map for what changes",
    ast.Set: "use a tuple",
}


class Expressions(Calls):
    """The expressions of one function, of every form."""

    def expression(self, node: ast.expr) -> tree.Expression:
        """Any expression."""
        at = self.place(node)
        self.scope.session.count(at)
        match node:
            case ast.Constant(value=value):
                return self.scope.static(value, at)
            case ast.Name(id=name):
                return self.scope.name(name, at)
            case ast.Attribute():
                return self.attribute(node, at)
            case ast.BinOp():
                return self.binary(node, at)
            case ast.UnaryOp():
                return self.unary(node, at)
            case ast.BoolOp():
                return self.logical(node, at)
            case ast.Compare():
                return self.comparison(node, at)
            case ast.IfExp():
                return self.conditional(node, at)
            case ast.Tuple(elts=elements):
                return self.tuple_of(elements, at)
            case ast.Subscript():
                return self.subscript(node, at)
            case ast.Call():
                return self.call(node, at)
        what = type(node).__name__
        hint = _REFUSED.get(type(node), "it is not part of what a program can be")
        at.refuse(f"{what} cannot be compiled; {hint}")
