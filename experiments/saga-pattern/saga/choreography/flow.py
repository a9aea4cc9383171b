"""The flow that nobody wrote down: put together from the machines, or drawn from the events that were recorded.

An arrow leads from the event that was heard over the service that heard it to the event that it said. Every event
carries the id of the one that caused it, so what was recorded is enough.
"""

import graphlib
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from enum import StrEnum

from saga.choreography.machine import ENDS, SUBMITTED, Machines, emitter
from shared.event import Event

NOBODY = ""
FINISH = "finish"  # drawn where nobody hears


@dataclass(frozen=True, order=True)
class Arrow:
    """`service` hears `heard` and says `said`."""

    heard: str
    service: str
    said: str


class Wrong(StrEnum):
    """What can be wrong with a flow."""

    CYCLE = "cycle"  # events that cause each other
    ORPHAN = "orphan"  # nobody reacted to it, and it ends nothing
    CAUSATION = "broken causation"  # its cause is not among the events, or is not told
    CORRELATION = "broken correlation"  # it belongs to another saga than its cause


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with which event (its id, or its type where it is about the flow as a whole)."""

    wrong: Wrong
    event: str
    detail: str


@dataclass(frozen=True)
class Flow:
    """A graph: each arrow with the number of times that it was seen."""

    arrows: Counter[Arrow]

    @property
    def events(self) -> set[str]:
        return {event for arrow in self.arrows for event in (arrow.heard, arrow.said)}

    @property
    def services(self) -> set[str]:
        return {arrow.service for arrow in self.arrows}

    @property
    def messages(self) -> set[tuple[str, str, str]]:
        """(who says it, event, who hears it), with nobody as the hearer of what no service reacts to."""
        heard = {(emitter(arrow.heard), arrow.heard, arrow.service) for arrow in self.arrows}
        unheard = self.events - {arrow.heard for arrow in self.arrows}
        return heard | {(emitter(event), event, NOBODY) for event in unheard}

    def cycle(self) -> tuple[str, ...]:
        """Events that cause each other, from one of them back to it; empty when there are none."""
        causes: dict[str, set[str]] = {}
        for arrow in self.arrows:
            causes.setdefault(arrow.said, set()).add(arrow.heard)
        return _cycle(causes)

    def mutual(self) -> set[tuple[str, str]]:
        """Pairs of services each of which hears the other."""
        hears = {(one, other) for one, _, other in self.messages if other != NOBODY}
        return {(one, other) for one, other in hears if one < other and (other, one) in hears}

    def orphans(self, ends: Set[str] = ENDS) -> set[str]:
        """Events that nobody reacts to, and that end nothing."""
        return {event for _, event, hearer in self.messages if hearer == NOBODY} - ends

    def paths(self, start: str = SUBMITTED) -> Iterator[tuple[Arrow, ...]]:
        """Every way from the start to where nobody reacts. Not for a flow with a cycle."""
        following = sorted(arrow for arrow in self.arrows if arrow.heard == start)
        for arrow in following:
            rest = list(self.paths(arrow.said))
            yield from ((arrow, *path) for path in rest or [()])

    def mermaid(self) -> str:
        """As a Mermaid flowchart, for a README. (`end` is a word of Mermaid's own.)"""
        lines = (f"    {who} -- {event} --> {hearer or FINISH}" for who, event, hearer in sorted(self.messages))
        return "\n".join(("flowchart LR", *lines))

    def dot(self) -> str:
        """In Graphviz's language."""
        lines = (f'    {who} -> {hearer or FINISH} [label="{event}"];' for who, event, hearer in sorted(self.messages))
        return "\n".join(("digraph saga {", "    rankdir=LR;", *lines, "}"))


def declared(machines: Machines) -> Flow:
    """What the machines can do, together."""
    arrows = (
        Arrow(reaction.hears, machine.service, said)
        for machine in machines
        for reaction in machine.reactions
        for said in reaction.said
    )
    return Flow(Counter(arrows))


def recorded(events: Iterable[Event]) -> Flow:
    """What was done. An event that came several times counts once."""
    by_id = {event.id: event for event in events}
    caused = ((by_id[event.causation_id], event) for event in by_id.values() if event.causation_id in by_id)
    return Flow(Counter(Arrow(cause.type, emitter(event.type), event.type) for cause, event in caused))


def problems(events: Iterable[Event], ends: Set[str] = ENDS) -> list[Problem]:
    """What is wrong with the events of sagas that are at rest."""
    by_id = {event.id: event for event in events}
    causes = {event.causation_id for event in by_id.values()}
    found = [problem for event in by_id.values() for problem in _broken(event, by_id)]
    for event in by_id.values():
        if event.id not in causes and event.type not in ends:
            found.append(Problem(Wrong.ORPHAN, event.id, f"nobody reacted to {event.type}"))
    if cycle := recorded(by_id.values()).cycle():
        found.append(Problem(Wrong.CYCLE, cycle[0], " -> ".join(cycle)))
    return found


def _broken(event: Event, by_id: dict[str, Event]) -> Iterator[Problem]:
    """The links of one event to its cause."""
    cause = by_id.get(event.causation_id)
    if cause is None:
        if event.causation_id or event.type != SUBMITTED:
            told = f"{event.causation_id} is not there" if event.causation_id else "it does not tell its cause"
            yield Problem(Wrong.CAUSATION, event.id, f"{event.type}: {told}")
    elif cause.correlation_id != event.correlation_id:
        sagas = f"{event.correlation_id!r} after {cause.correlation_id!r}"
        yield Problem(Wrong.CORRELATION, event.id, f"{event.type}: {sagas}")


def _cycle(causes: dict[str, set[str]]) -> tuple[str, ...]:
    try:
        graphlib.TopologicalSorter(causes).prepare()
    except graphlib.CycleError as error:
        return tuple(error.args[1])
    return ()
