"""How much there is to read and to know: what all labs call a line of code, and a name."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Size:
    """`lines`: those on which something begins, so no comments, docstrings, blank lines or lone brackets.

    `names`: public classes and functions.
    """

    lines: int
    names: int


def size(modules: Iterable[Path]) -> Size:
    """Of all the modules together. Raises OSError and SyntaxError where one cannot be read."""
    trees = [ast.parse(module.read_text(encoding="utf-8")) for module in modules]
    return Size(sum(len(set(_begun(tree))) for tree in trees), sum(len(set(_names(tree))) for tree in trees))


def data_lines(paths: Iterable[Path]) -> int:
    """Lines of anything that is not Python, such as a diagram, that are not blank."""
    return sum(bool(line.strip()) for path in paths for line in path.read_text(encoding="utf-8").splitlines())


def _begun(node: ast.AST) -> Iterator[int]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if line := getattr(child, "lineno", 0):
            yield line
        yield from _begun(child)


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name
