"""How much there is to read and to know: lines of code and concepts of a module, counted from its source."""

import ast
from dataclasses import dataclass
from pathlib import Path

DEFINITIONS = ast.ClassDef | ast.FunctionDef
DOCUMENTED = ast.Module | DEFINITIONS


@dataclass(frozen=True)
class Size:
    """`lines`: one for each statement or header of one, no docstrings; `concepts`: public classes and functions."""

    lines: int
    concepts: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.lines + other.lines, self.concepts + other.concepts)


def size(*modules: Path) -> Size:
    """Of all the modules together."""
    return sum((_size(ast.parse(module.read_text())) for module in modules), Size(0, 0))


def _size(tree: ast.Module) -> Size:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    lines = [line for line in ast.unparse(tree).splitlines() if line.strip()]
    names = [node.name for node in ast.walk(tree) if isinstance(node, DEFINITIONS)]
    return Size(len(lines), len({name for name in names if not name.startswith("_")}))
