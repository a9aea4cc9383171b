"""The engines compared: each carries out the same orders, alone and many at once, is killed, and endures schedules."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from saga.order import UNDO, Action, Outcome
from saga.stage import contenders, measuring
from saga.stage.contenders import CHOREOGRAPHY, CONTENDERS, DBOS, Contender
from saga.stage.engines import Engine, Site
from saga.stage.fates import KIND, FatedShop, Fates, open_shop
from saga.stage.foreign.claimed import claim_foreign
from saga.stage.foreign.dbos import Enqueued
from saga.stage.measuring import Tried, alone
from saga.stage.ran import lines, noted, noting
from saga.stage.schedules import drawn, endure, fates
from shared.faults import Faults
from shared.run import Run, Scale
from shared.servers.server import Endpoint
from shared.threads import together
from shared.worker import Worker

# Processes of each; ours has two more, which host the services that the workers of the others call, and a choreography
# has one for each service.
WORKERS = 2
WARM_UP = 10  # sagas
STAYS_DEAD = 15.0  # seconds: three times what any engine takes to find out that a worker is dead


class Plan(NamedTuple):
    """How much of everything."""

    sagas: int
    alone: int
    recoveries: int
    schedules: int


@dataclass
class Comparison:
    """The engines that can be had here, each with the endpoints of its servers, and no other."""

    run: Run
    plan: Plan
    found: dict[Contender, dict[str, Endpoint]]
    faults: Faults
    numbers: Iterator[int] = field(default_factory=itertools.count)  # of shops

    @contextmanager
    def up(self, contender: Contender, given: Fates, watched: bool = False) -> Iterator[tuple[Engine, FatedShop]]:
        """The engine, on a shop of its own. Where it is watched, its processes note what they carry out."""
        run, number = self.run, str(next(self.numbers))
        shop = open_shop(run, number, given)

        def worker(name: str, *arguments: object) -> Worker:
            name = f"{contender.name}/{name}"
            return run.worker(name, *((noting, measuring.notes(run, name)) if watched else ()), *arguments)

        space, folder = f"{run.name}_{number}", run.folder / contender.name
        site = Site(shop, space, self.found[contender], folder, worker, WORKERS, keep=run.keep)
        with contender.opened(site) as engine:
            yield engine, shop

    def time(self, contender: Contender) -> None:
        """Figures of its speed, and of what it takes. Raises NothingToMeasure unless every order is complete."""
        run, database, sagas = self.run, self.run.endpoints["postgres"].url, WARM_UP + self.plan.sagas
        with self.up(contender, KIND) as (engine, shop):
            before = measuring.Journal.read(database)
            measuring.carry(engine, measuring.some("warm", WARM_UP), contender.at_once)
            began = measuring.usage(run, contender, engine)
            load = measuring.carry(engine, measuring.some("load", self.plan.sagas), contender.at_once)
            both = zip(began, measuring.usage(run, contender, engine), strict=True)
            took, of_database = (end - start for start, end in both)
        log = measuring.Journal.read(database) - before  # by now every session has told of its flushes
        measuring.require_complete(shop, sagas)
        timed = measuring.Timed(load, took, of_database, log.flushes / sagas, log.length / 1000 / sagas)
        measuring.note(run, contender, timed)

    def time_alone(self, contender: Contender) -> None:
        """One saga after the other, then many, whose workers are killed. Raises NothingToMeasure as above."""
        many, further, kill = contender.at_once, None, self.faults.kill
        with self.up(contender, KIND) as (engine, shop):
            measuring.carry(engine, measuring.some("warm", WARM_UP), many)
            spent = [alone(engine, order) for order in measuring.some("alone", self.plan.alone)]
            rounds = [measuring.some(f"back{number}", many) for number in range(self.plan.recoveries)]
            back = [measuring.recover(engine, made, kill) for made in rounds]
            if full := self.run.scale is Scale.FULL:
                further = measuring.goes_on(engine, measuring.some("further", many), kill, STAYS_DEAD)
            measuring.require_complete(shop, WARM_UP + self.plan.alone + many * (len(rounds) + full))
        measuring.note_alone(self.run, contender, measuring.Alone(spent, back, further))

    def try_all(self) -> dict[Contender, Tried]:
        """All under the same schedules, side by side: here no time is taken."""
        return dict(zip(self.found, together(self.try_one, self.found), strict=True))

    def try_one(self, contender: Contender) -> Tried:
        """What becomes of orders whose steps fail as drawn, while workers are killed."""
        schedules = drawn(self.run.seed, self.plan.schedules)
        with self.up(contender, fates(self.run.seed, schedules), watched=True) as (engine, shop):
            verdict = endure(engine, shop, schedules, self.faults.kill, decides=contender.decides)
            ran = frozenset(noted(measuring.notes(self.run, worker.name) for worker in engine.workers))
        doubtful = [order for schedule in schedules for order in schedule.doubtful]
        undone = all(measuring.asked(shop, order, UNDO[Action.SHIP]) for order in doubtful)
        undone = undone and {verdict.outcome(order) for order in doubtful} == {Outcome.COMPENSATED}
        return Tried(verdict, undone, ran)

    def claim_unreadable(self) -> None:
        """The claim about orders that nobody can read, in the queue of DBOS. Of others, other experiments have it."""
        claim_foreign(self.run, DBOS.name, DBOS.opened, Enqueued, [], self.found[DBOS])

    def rates(self) -> dict[str, float]:
        """Sagas per second, of those that orchestrate."""
        found = {figure.variant: figure.value for figure in self.run.figures if figure.name == "sagas"}
        return {name: rate for name, rate in found.items() if name != CHOREOGRAPHY.name}

    def going_on(self, wanted: bool) -> list[str]:
        """Those that go on, or do not, when one of their workers stays dead."""
        tried = [figure for figure in self.run.figures if figure.name == measuring.GOES_ON]
        return [figure.variant for figure in tried if bool(figure.value) is wanted]


def compare(run: Run, plan: Plan) -> Comparison:
    """At scale smoke, engines are not looked for among the labs' own servers."""
    run.parameters.update(
        {"workers": WORKERS, "attempts of a compensation": contenders.UNDO_ATTEMPTS, **plan._asdict()}
    )
    found = contenders.gather(run, run.endpoints, more=run.scale is not Scale.SMOKE)
    return Comparison(run, plan, found, Faults(run.recorder("faults", "experiment")))


def note_code(run: Run) -> None:
    """Figures of the code that a reader would copy."""
    for contender in CONTENDERS:
        run.figure("code", contender.code_lines, "lines of Python", variant=contender.name, data=contender.data_lines)


def carried_out(tried: Mapping[Contender, Tried]) -> tuple[dict[str, int], set[str]]:
    """Lines of what the workers of each carried out beyond what those of all did, and modules that nobody counts.

    What all have in common are the services, and what fails in them.
    """
    common = contenders.SAME.union(frozenset[str].intersection(*(one.ran for one in tried.values())))
    uncounted = {module for contender, one in tried.items() for module in one.ran - common - set(contender.code)}
    return {contender.name: lines(one.ran - common) for contender, one in tried.items()}, uncounted
