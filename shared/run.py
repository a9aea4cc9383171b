"""One run of an experiment: what its script does its work with, and what becomes its record."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from shared import checkers, faults, kafka, postgres
from shared.about import About
from shared.errors import ConfigurationError, NotAvailable
from shared.figures import distribution
from shared.history import History, Recorder
from shared.output import Output
from shared.record import Claim, Figure, Finding, HistorySummary, NotPossible
from shared.servers.catalogue import find
from shared.servers.handle import Handle, own_instance
from shared.servers.server import Endpoint
from shared.servers.stack import Stack
from shared.worker import Worker

T = TypeVar("T")
SHOWN = 20  # findings of each kind that a record keeps


class Scale(StrEnum):
    """How much: `smoke` proves that it works, `demo` is for watching, `full` is for evidence."""

    SMOKE = "smoke"
    DEMO = "demo"
    FULL = "full"


class Run:
    """Given to the experiment's function. Everything that it makes is gone at the end, unless the user said --keep."""

    def __init__(
        self,
        folder: Path,
        stack: Stack,
        endpoints: Mapping[str, Endpoint],
        scale: Scale,
        seed: int,
        output: Output,
        keep: bool = False,
    ) -> None:
        self.folder = folder
        self.stack = stack
        self.endpoints = endpoints
        self.scale = scale
        self.seed = seed
        self.output = output
        self.keep = keep
        self.name = f"lab_{folder.parent.name[:2]}_{time.time_ns() // 1_000_000 % 10**9:09d}"
        self.claims: list[Claim] = []
        self.figures: list[Figure] = []
        self.histories: list[HistorySummary] = []
        self.not_possible: list[NotPossible] = []
        self.chances: dict[str, bool] = {}
        self.parameters: dict[str, str | int | float | bool] = {}
        self.stack_of_things = ExitStack()
        if "kafka" in endpoints and not keep:
            self.cleanup(lambda: kafka.delete_topics(endpoints["kafka"], self.name))

    def pick(self, smoke: T, demo: T, full: T) -> T:
        """The value for this run's scale."""
        return {Scale.SMOKE: smoke, Scale.DEMO: demo, Scale.FULL: full}[self.scale]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A named part of the run, shown with the time it takes."""
        with self.output.step(name):
            yield

    # What the run works on. The names all begin with `name`: nothing else is ever dropped.

    def schema(self, suffix: str = "") -> str:
        """A fresh Postgres schema; returns an address (conninfo) whose sessions live in it."""
        server, name = self.endpoints["postgres"], f"{self.name}{suffix}"
        url = postgres.create_schema(server, name)
        if not self.keep:
            self.cleanup(lambda: postgres.drop_schema(server, name))
        return url

    def topic(self, name: str, partitions: int = 3) -> str:
        """A fresh Kafka topic; returns its full name."""
        full = f"{self.name}.{name}"
        kafka.create_topics(self.endpoints["kafka"], [full], partitions)
        return full

    def own(self, server: str, needs: Mapping[str, Endpoint] | None = None, **overrides: str) -> Handle:
        """A server of the run's own, that may be killed; always native. Overrides have _ for dots."""
        settings = find(server).spelled(overrides)
        return self.stack_of_things.enter_context(own_instance(server, self.stack.settings, needs, settings))

    def control(self, server: str) -> Handle:
        """Control over a server that the labs started; it runs again at the end, whatever was done to it."""
        handle = self.stack.control(server)
        self.cleanup(lambda: handle.record.dead and handle.start())
        return handle

    def worker(self, name: str, target: Callable[..., object], *arguments: object, **options: object) -> Worker:
        """A started process of ours, stopped at the end of the run at the latest."""
        worker = Worker(name, self.folder / f"{name}.log", target, *arguments, **options).start()
        self.stack_of_things.callback(worker.stop)
        return worker

    def cleanup(self, action: Callable[[], object]) -> None:
        """Do this at the end of the run, whatever happens before."""
        self.stack_of_things.callback(action)

    def possible(self, server: str, step: str) -> bool:
        """Whether the server is ours to kill or pause; where it is not, the step is reported as not possible."""
        if self.endpoints[server].ours:
            return True
        self.leave_out(step, f"{server} is your own: the labs never kill, pause or restart it")
        return False

    def optional(self, server: str, step: str) -> Endpoint | None:
        """A server that not every machine can have, started if need be; without it, the step is reported as left out.

        At scale smoke it is used only where it runs already: no image is pulled to prove that a script works.
        """
        try:
            if self.scale is Scale.SMOKE and self.stack.find(server) is None:
                raise NotAvailable(server, "it does not run, and is not started at scale smoke.")
            return self.stack_of_things.enter_context(self.stack.borrowed([server]))[server]
        except NotAvailable as error:
            self.leave_out(step, str(error))
            return None

    def leave_out(self, step: str, reason: str) -> None:
        """Report a step that is not possible here."""
        self.not_possible.append(NotPossible(step=step, reason=reason))
        self.output.skipped(step, reason)

    # What the run finds out.

    def history_file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def recorder(self, name: str, process: str) -> Recorder:
        """An open history of that name, for this process; closed at the end of the run."""
        return self.stack_of_things.enter_context(Recorder(self.history_file(name), process))

    def judge(
        self,
        name: str,
        *,
        variant: str = "",
        wrong_way: bool = False,
        fault: str | None = None,
        also: Sequence[Path] = (),
    ) -> History:
        """Read a history and run every checker over it. With `fault`, raises FaultNotFired unless one such fired.

        What others have recorded in files of their own (`also`) becomes part of it.
        """
        if also:
            with self.history_file(name).open("ab") as file:
                file.writelines(path.read_bytes() for path in also)
        history = History.read(self.history_file(name))
        if fault is not None:
            faults.require(history, fault)
        found = checkers.check(history)
        findings = [_finding(anomaly) for anomalies in found.values() for anomaly in anomalies[:SHOWN]]
        self.histories.append(
            HistorySummary(
                name=name,
                path=f"{name}.jsonl",
                variant=variant,
                wrong_way=wrong_way,
                operations=len(history),
                faults=len(history.faults),
                counts={kind: len(anomalies) for kind, anomalies in found.items()},
                findings=tuple(findings),
            )
        )
        return history

    def about(self, variant: str, *, wrong_way: bool = False, topics: Sequence[str] = ()) -> About:
        """What is claimed and measured of one variant."""
        return About(self, variant, wrong_way, topics)

    def claim(
        self,
        text: str,
        holds: bool,
        *,
        topics: Sequence[str] = (),
        fact: str = "",
        variant: str = "",
        wrong_way: bool = False,
        source: str = "",
    ) -> None:
        """Assert one sentence. `wrong_way` marks the claim that the popular wrong way does fail.

        `source` is the public report that it reproduces, as "librdkafka#5423".
        """
        claim = Claim(
            text=text,
            holds=bool(holds),
            topics=tuple(topics),
            variant=variant,
            wrong_way=wrong_way,
            fact=fact,
            source=source,
        )
        self.claims.append(claim)
        self.output.claim(claim)

    def sometimes(self, text: str, seen: bool) -> None:
        """What chance decides, such as where a kill hits: one run may miss it, `lab run --repeat N` must see it once.

        Antithesis documentation, "Sometimes Assertions".
        """
        self.chances[text] = bool(seen) or self.chances.get(text, False)

    def figure(
        self,
        name: str,
        value: float | Sequence[float],
        unit: str,
        *,
        variant: str = "",
        wrong_way: bool = False,
        x: str | float | None = None,
        x_label: str = "",
        **parameters: str | int | float | bool,
    ) -> Figure:
        """Note one measured value, or samples of it (then the median, p95, p99 and the range are kept)."""
        measured = {"value": float(value)} if isinstance(value, int | float) else distribution(name, value)
        fields = {
            "name": name,
            "unit": unit,
            "variant": variant,
            "wrong_way": wrong_way,
            "x": x,
            "x_label": x_label,
            "parameters": parameters,
            **measured,
        }
        try:
            figure = Figure.model_validate(fields)
        except ValidationError as error:
            raise ConfigurationError(f"the figure {name!r} cannot be recorded: {error}") from error
        self.figures.append(figure)
        return figure


def slug(text: str) -> str:
    """A text as a part of names, of files, schemas and topics: small letters, figures, and _ for all else."""
    return re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")


def _finding(anomaly: checkers.Anomaly) -> Finding:
    return Finding(
        kind=anomaly.kind,
        value=anomaly.value,
        key=anomaly.key,
        process=anomaly.process,
        at=anomaly.at,
        detail=anomaly.detail,
    )
