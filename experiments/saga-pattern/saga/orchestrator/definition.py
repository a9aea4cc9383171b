"""A saga as data: its steps, what undoes them, how long to wait, how often to ask. Read from TOML, kept as JSON.

A definition is checked as a whole when it is read. One that is used is never changed: sagas keep the version with
which they began.
"""

import graphlib
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from saga.order import Action
from shared import codec
from shared.errors import LabError, NotReadable

Seconds = Annotated[float, Meta(gt=0)]
ORDER_FILE = Path(__file__).with_name("order.toml")
_read = codec.decoder(dict[str, Any])


class DefinitionError(LabError):
    """Not a definition. `problems` lists everything that is wrong with it."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        super().__init__(f"saga {name!r}: {'; '.join(problems)}")
        self.problems = tuple(problems)


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """How often to ask, and how long to pause before asking again: growing, capped, and spread by chance."""

    attempts: Annotated[int, Meta(ge=1)] = 5
    first: Annotated[float, Meta(ge=0)] = 0.1  # seconds
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    longest: Seconds = 5.0
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.5  # share of the pause that chance may take away

    def pause(self, attempt: int, seed: str) -> float:
        """Seconds between this attempt, counted from 1, and the next. The same seed gives the same chance."""
        whole = min(self.first * self.factor ** min(attempt - 1, 100), self.longest)
        return whole * (1 - self.jitter * random.Random(seed).random())


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One step. `undo` undoes it; a step that is not `compensable` leaves nothing to undo."""

    action: Action
    undo: Action | None = None
    compensable: bool = True
    timeout: Seconds = 1.0  # of one attempt
    retry: Retry = Retry()
    after: tuple[Action, ...] = ()


class Definition(Struct, frozen=True, forbid_unknown_fields=True):
    """A checked saga: its steps in the order in which they are done, one after the other."""

    name: Annotated[str, Meta(min_length=1)]
    steps: tuple[Step, ...]
    version: Annotated[int, Meta(ge=1)] = 1
    timeout: Seconds = 30.0  # of all steps together; compensation takes as long as it takes
    undo_timeout: Seconds = 1.0  # of one attempt
    undo_retry: Retry = Retry(attempts=10)


def load(data: Mapping[str, Any]) -> Definition:
    """Check a definition and put its steps in order. Raises DefinitionError naming all that is wrong."""
    problems: list[str] = []
    listed = data.get("steps")
    steps = list(_steps(listed if isinstance(listed, list | tuple) else [], problems))
    if not steps and not problems:
        problems.append("it has no steps")
    problems += _check(steps)
    ordered = _ordered(steps, problems)
    try:
        definition = codec.convert({**data, "steps": ()}, Definition)
    except NotReadable as error:
        problems.append(str(error))
    if problems:
        raise DefinitionError(str(data.get("name", "")), problems)
    return msgspec.structs.replace(definition, steps=ordered)


def read(path: Path = ORDER_FILE) -> Definition:
    """The definition in a TOML file. Raises DefinitionError."""
    try:
        return load(tomllib.loads(codec.text(path.read_bytes())))
    except (tomllib.TOMLDecodeError, NotReadable) as error:
        raise DefinitionError(path.name, [str(error)]) from error


def timed(definition: Definition, attempt: float, retry: Retry, whole: float) -> Definition:
    """The same saga in other times: seconds of an attempt and of all steps, and how often steps are tried."""
    steps = tuple(msgspec.structs.replace(step, timeout=attempt, retry=retry) for step in definition.steps)
    return msgspec.structs.replace(definition, steps=steps, timeout=whole, undo_timeout=attempt)


def encode(definition: Definition) -> bytes:
    return codec.encode(definition)


def decode(data: bytes) -> Definition:
    """Raises DefinitionError: another version of this program may have written it."""
    try:
        return load(_read(data))
    except NotReadable as error:
        raise DefinitionError("", [str(error)]) from error


def _steps(listed: Sequence[object], problems: list[str]) -> Iterator[Step]:
    for number, raw in enumerate(listed, 1):
        try:
            yield codec.convert(raw, Step)
        except NotReadable as error:
            problems.append(f"step {number}: {error}")


def _check(steps: Sequence[Step]) -> Iterator[str]:
    names = [step.action for step in steps]
    used = names + [step.undo for step in steps if step.undo]
    yield from (f"{name} is there {used.count(name)} times" for name in dict.fromkeys(used) if used.count(name) > 1)
    for step in steps:
        if step.compensable and step.undo is None:
            yield f"{step.action} has to be undone and nothing undoes it"
        if not step.compensable and step.undo:
            yield f"{step.action} is not compensable and yet undone by {step.undo}"
        yield from (f"{step.action} comes after {name}, which is no step" for name in step.after if name not in names)


def _ordered(steps: Sequence[Step], problems: list[str]) -> tuple[Step, ...]:
    """Steps after those that they wait for, and otherwise as listed."""
    by_name = {step.action: step for step in steps}
    listed, ordered, ready = list(by_name), list[Action](), list[Action]()
    sorter = graphlib.TopologicalSorter({step.action: set(step.after) & by_name.keys() for step in steps})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        problems.append(f"its steps wait for each other: {' -> '.join(error.args[1])}")
        return ()
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=listed.index)
        ordered.append(ready.pop(0))
        sorter.done(ordered[-1])
    return tuple(by_name[name] for name in ordered)
