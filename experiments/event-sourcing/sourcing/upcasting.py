"""Old events read as current ones: small pure steps, from the schema version that was written to today's.

A step is keyed (event type, schema version) and makes dicts out of a dict. It leads to the next version of its type,
to another type, to several events, or to none; the next step goes on from there. The versions of a type count from 1.
What is stored is never touched, and the code that applies events knows the current shape only. (Compare Axon's
EventUpcasterChain and Marten's `Upcast`. The version is in the envelope here: nothing is guessed from the data.)
"""

import dis
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import isgeneratorfunction
from itertools import pairwise

from sourcing.aggregate import Aggregate
from sourcing.errors import MissingUpcaster, SchemaMismatch, SourcingError, UnknownEventType
from sourcing.event import Data, Recorded, data_of

Shape = tuple[str, int]  # (event type, schema version)
One = Callable[[Data], Data]
Several = Callable[[Data], Iterable[tuple[str, Data]]]


class BrokenChain(SourcingError):
    """Upcasters that do not lead every old event to what is written today; found at start-up, not at 3 a.m."""


@dataclass(frozen=True, slots=True)
class Upcast:
    """From one shape to those in `into` (type -> schema version); each result names its type."""

    into: Mapping[str, int]
    run: Several
    code: Callable[..., object]  # the function that was decorated


class Upcasters:
    """The steps of a program, and the versions that they end at. Call it as the repository's reader."""

    def __init__(self, current: Mapping[str, int]) -> None:
        """`current`: every event type that the program knows -> the schema version that it writes."""
        self.current = dict(current)
        self.taken = 0  # steps so far
        self._steps: dict[Shape, Upcast] = {}

    def step(self, type_: str, version: int, to: Shape | None = None) -> Callable[[One], One]:
        """Decorator of a dict -> dict function: to the next version of the type, or to another type."""
        target, target_version = to or (type_, version + 1)

        def register(function: One) -> One:
            self._add(
                (type_, version), Upcast({target: target_version}, lambda data: [(target, function(data))], function)
            )
            return function

        return register

    def split(self, type_: str, version: int, into: Mapping[str, int]) -> Callable[[Several], Several]:
        """Decorator of a dict -> [(type, dict), ...] function: to events of the types and versions in `into`."""

        def register(function: Several) -> Several:
            self._add((type_, version), Upcast(into, function, function))
            return function

        return register

    def drop(self, type_: str, version: int) -> None:
        """Such events mean nothing any more."""
        self._add((type_, version), Upcast({}, _nothing, _nothing))

    @property
    def shapes(self) -> set[Shape]:
        """Everything that can be read: what was ever written."""
        return {*self.current.items(), *self._steps}

    def is_current(self, event: Recorded) -> bool:
        return self.current.get(event.type) == event.schema_version

    def __call__(self, event: Recorded) -> Iterable[tuple[str, Data]]:
        """The current events that a stored one stands for.

        Raises UndecodablePayload, UnknownEventType, MissingUpcaster (also for a version newer than this program), and
        SchemaMismatch where a step cannot use the data.
        """
        if self.current.get(event.type) == event.schema_version:  # most events, most of the time
            return ((event.type, data_of(event)),)
        return list(self._follow(event, event.type, event.schema_version, data_of(event)))

    def check(self, *writers: type[Aggregate]) -> None:
        """Raise BrokenChain naming every hole, dead end and circle, and where these aggregates write other versions.

        A step that changes the data in place and forgets to return them is named too, where its code shows that.
        """
        problems = [*self._holes(), *self._dead_ends(), *self._disagreements(writers), *self._forgetful()]
        if problems:
            raise BrokenChain("; ".join(dict.fromkeys(problems)))

    def _add(self, shape: Shape, step: Upcast) -> None:
        if shape in self._steps:
            raise BrokenChain(f"two steps begin at {_name(shape)}")
        self._steps[shape] = step

    def _follow(self, event: Recorded, type_: str, version: int, data: Data) -> Iterator[tuple[str, Data]]:
        if self.current.get(type_) == version:
            yield type_, data
            return
        step = self._steps.get((type_, version)) or self._stuck(event, (type_, version))
        self.taken += 1
        for next_type, next_data in _run(step, event, (type_, version), data):
            yield from self._follow(event, next_type, step.into[next_type], next_data)

    def _stuck(self, event: Recorded, shape: Shape) -> Upcast:
        type_, version = shape
        newest = self.current.get(type_, 0)
        if 0 < newest < version:
            problem = f"schema version {version} is newer than {newest}, the newest that this program knows"
            raise MissingUpcaster(*event[:3], f"{problem}: deploy readers before writers")
        if type_ in {known for known, _ in self.shapes}:
            raise MissingUpcaster(*event[:3], f"no step begins at {_name(shape)}")
        raise UnknownEventType(*event[:3], f"this program does not know {_name(shape)}")

    def _holes(self) -> Iterator[str]:
        for type_ in {known for known, _ in self.shapes}:
            versions = {version for name, version in self._steps if name == type_}
            current = self.current.get(type_, max(versions, default=0) + 1)  # a type written no more ends in steps
            yield from (f"no step begins at {_name((type_, n))}" for n in sorted({*range(1, current)} - versions))
            yield from (
                f"a step begins at {_name((type_, n))}, and the current version is {current}"
                for n in sorted(versions - {*range(1, current)})
            )

    def _dead_ends(self) -> Iterator[str]:
        for shape in self._steps:
            yield from self._walk(shape, ())

    def _walk(self, shape: Shape, path: tuple[Shape, ...]) -> Iterator[str]:
        if shape in path:
            yield f"the steps go in a circle: {' -> '.join(map(_name, sorted(path)))}"
        elif self.current.get(shape[0]) == shape[1]:
            return
        elif step := self._steps.get(shape):
            for target in step.into.items():
                yield from self._walk(target, (*path, shape))
        else:
            yield f"{_name(path[-1])} leads to {_name(shape)}, where nothing begins"

    def _disagreements(self, writers: Iterable[type[Aggregate]]) -> Iterator[str]:
        written = {type_: version for writer in writers for type_, version in writer.schemas.items()}
        for type_ in sorted({*written} | {name for name, version in self.current.items() if version != 1}):
            writes, ends = written.get(type_, 1), self.current.get(type_)
            if writers and writes != ends:
                yield f"{type_!r} is written as version {writes}, and the steps end at {ends or 'nothing'}"

    def _forgetful(self) -> Iterator[str]:
        void = [shape for shape, step in self._steps.items() if _is_void(step.code)]
        return (f"the step from {_name(shape)} returns nothing" for shape in void)


def _run(step: Upcast, event: Recorded, shape: Shape, data: Data) -> list[tuple[str, Data]]:
    try:
        made = [(type_, data) for type_, data in step.run(data)]
        strangers = {type_ for type_, _ in made} - step.into.keys()
    except Exception as error:  # the program's own code: nothing but the event can be at fault
        raise SchemaMismatch(*event[:3], f"the step from {_name(shape)} failed: {error!r}") from error
    if strangers:
        raise MissingUpcaster(*event[:3], f"the step from {_name(shape)} made {strangers}, which it does not declare")
    if wrong := [data for _, data in made if not isinstance(data, dict)]:
        problem = f"the step from {_name(shape)} returned {type(wrong[0]).__name__}, and not the data of an event"
        raise SchemaMismatch(*event[:3], problem)
    return made


def _nothing(data: Data) -> Iterable[tuple[str, Data]]:
    return ()


def _is_void(function: Callable[..., object]) -> bool:
    """Whether it is written in Python and returns None wherever it returns; what is built in does not say."""
    if isgeneratorfunction(function) or not hasattr(function, "__code__"):
        return False
    # None is returned by one instruction, or by two that nothing jumps between, as the version of Python has it.
    returned = [(before, this) for before, this in pairwise(dis.get_instructions(function)) if "RETURN_" in this.opname]
    return bool(returned) and all(
        this.argval is None
        if this.opname == "RETURN_CONST"
        else before.opname == "LOAD_CONST" and before.argval is None and not this.is_jump_target
        for before, this in returned
    )


def _name(shape: Shape) -> str:
    return f"{shape[0]!r} v{shape[1]}"
