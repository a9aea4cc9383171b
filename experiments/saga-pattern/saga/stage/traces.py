"""Which modules of this package a process carries out: what an engine is of ours, found by a run and not by a list.

What only stages an engine here is not counted.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

from shared.size import size

HERE = Path(__file__).parents[1]
STAGE = HERE / "stage"
MODULE = "<module>"  # the name of the code that an import carries out


def noting(notes: Path, target: Callable[..., object], *arguments: object) -> None:
    """To be the target of a process: the same, which notes a module when one of its functions is called first.

    At once, since whoever is killed says nothing at its end. It slows down every call.
    """
    seen = set[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename not in seen and code.co_name != MODULE:
            seen.add(code.co_filename)
            if HERE in (above := Path(code.co_filename).parents) and STAGE not in above:
                with notes.open("a") as file:
                    file.write(f"{Path(code.co_filename).relative_to(HERE)}\n")

    threading.setprofile(note)
    sys.setprofile(note)
    target(*arguments)


def noted(notes: Iterable[Path]) -> set[str]:
    """The modules in these notes, as paths within the package."""
    return {line for path in notes for line in path.read_text().splitlines()}


def lines(modules: Iterable[str]) -> int:
    """Lines of code of these modules of the package."""
    return size(HERE / module for module in modules).lines
