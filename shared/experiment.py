"""What an experiment's script declares, and how it is run: by its path or by `lab run`, with the same options.

experiment = Experiment(title="...", servers=("postgres",), topics=("I.5/...",))

@experiment.run
def main(run: Run) -> None: ...

if __name__ == "__main__":
    experiment.main()
"""

import inspect
import random
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from shared import ending
from shared.environment import describe
from shared.errors import ConfigurationError, LabError
from shared.output import Output
from shared.record import RunRecord
from shared.report import syllabus
from shared.run import Run, Scale
from shared.servers.server import Endpoint
from shared.servers.stack import Stack
from shared.settings import ROOT, Provider, Settings
from shared.signals import undisturbed

__all__ = ["Experiment", "Run", "Scale"]


class Experiment:
    """One question. Its text is the docstring of the script; `topics` are the syllabus ids that its claims show."""

    def __init__(self, title: str, servers: tuple[str, ...] = (), topics: tuple[str, ...] = ()) -> None:
        self.title = title
        self.servers = servers
        self.topics = topics
        self.text = ""
        self.question = ""
        self.script = Path()
        self.function: Callable[[Run], None] | None = None

    @property
    def lab(self) -> str:
        return self.script.parent.name

    @property
    def name(self) -> str:
        return self.script.stem

    def run(self, function: Callable[[Run], None]) -> Callable[[Run], None]:
        """Decorator: this function is the experiment."""
        self.function = function
        self.script = Path(inspect.getfile(function)).resolve()
        self.text = inspect.cleandoc(str(function.__globals__.get("__doc__") or ""))
        self.question = self.text.partition("\n\n")[0]
        return function

    def main(self) -> None:
        """Run as a script."""
        self.as_script(self.command)

    def as_script(self, command: Callable[..., None], text: str | None = None) -> None:
        """Call the command with the arguments of the command line; `text` is its help, or else its docstring."""
        with ending.command("interrupted: servers stopped, nothing recorded"):
            app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
            app.command(help=text)(command)
            app()

    def command(
        self,
        scale: Annotated[Scale, typer.Option(help="smoke: proves it works; demo: for watching; full: for evidence")] = (
            Scale.DEMO
        ),
        seed: Annotated[int | None, typer.Option(help="repeat a run with its seed")] = None,
        provider: Annotated[Provider | None, typer.Option(help="who starts servers that do not run yet")] = None,
        json: Annotated[bool, typer.Option("--json", help="print the run record and nothing else")] = False,
        brief: Annotated[bool, typer.Option("--brief", help="print long steps and the verdict alone")] = False,
        keep: Annotated[
            bool, typer.Option("--keep", help="leave schema, topics and started servers for a look")
        ] = False,
    ) -> None:
        """Run the experiment; exits 1 when a claim does not hold."""
        output = Output(silent=json, brief=brief)
        record, folder = self.execute(scale, seed, provider, output, keep)
        if json:
            print(record.as_json())
        output.closing(record, str(folder))
        raise SystemExit(0 if record.holds or record.verdict.startswith("not possible") else 1)

    def execute(
        self, scale: Scale, seed: int | None, provider: Provider | None, output: Output, keep: bool = False
    ) -> tuple[RunRecord, Path]:
        """Run it on real servers, and write its record. Returns the record and its folder."""
        if self.function is None:
            raise ConfigurationError(f"{self.title!r} has no function: decorate one with @experiment.run")
        settings = Settings.load(provider=provider)
        output.opening(self.title, self.question)
        started, began = datetime.now(UTC), time.monotonic()
        folder = settings.home / "runs" / self.lab / self.name / started.strftime("%Y%m%dT%H%M%S.%f")
        stack = Stack(settings, tell=output.say)
        with ExitStack() as things:
            things.push(partial(_unrecorded, folder))
            endpoints: dict[str, Endpoint] = {}
            if self.servers:
                endpoints = stack.up(self.servers) if keep else things.enter_context(stack.borrowed(self.servers))
            environment = describe(folder, endpoints.values())
            chosen = random.SystemRandom().randrange(10**6) if seed is None else seed
            run = Run(folder, stack, endpoints, scale, chosen, output, keep)
            error = self._call(self.function, run)
            record = RunRecord(
                lab=self.lab,
                experiment=self.name,
                title=self.title,
                question=self.question,
                topics=self.topics,
                started=started,
                seconds=round(time.monotonic() - began, 1),
                scale=scale,
                seed=run.seed,
                environment=environment,
                parameters=run.parameters,
                claims=tuple(run.claims),
                figures=tuple(run.figures),
                histories=tuple(run.histories),
                not_possible=tuple(run.not_possible),
                sometimes=run.chances,
                error=error,
            )
            record.write(folder)
        return record, folder

    def _call(self, function: Callable[[Run], None], run: Run) -> str:
        """Call the function; an error of the house ends the run and becomes part of its record."""
        try:
            with ExitStack() as ends:
                ends.push(partial(_closed, run.stack_of_things))
                function(run)
            self._check_topics(run)
        except LabError as problem:
            error = f"{type(problem).__name__}: {problem}{ending.short_of_room()}"
            run.output.say(f"error: {error}")
            return error
        if run.keep:
            run.output.say(f"kept: all that is named {run.name}, and the servers (lab down stops them)")
        return ""

    def _check_topics(self, run: Run) -> None:
        """Raise ConfigurationError unless the topics declared are those that claims name, and the syllabus has them."""
        declared, claimed = set(self.topics), {topic for claim in run.claims for topic in claim.topics}
        known = {topic.id for section in syllabus.read(ROOT / "docs" / "syllabus.yaml") for topic in section.topics}
        unclaimed = set() if run.not_possible else declared - claimed  # a step left out takes its claims along
        wrong = {
            "a claim names a topic that the experiment does not declare": claimed - declared,
            "the experiment declares a topic that no claim names": unclaimed,
            "docs/syllabus.yaml does not have the topic": (declared | claimed) - known,
        }
        if problems := [f"{what}: {', '.join(sorted(topics))}" for what, topics in wrong.items() if topics]:
            raise ConfigurationError("; ".join(problems))


def _closed(
    things: ExitStack, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
) -> bool | None:
    """Whatever a run has opened is closed, and no signal breaks that off."""
    with undisturbed():
        return things.__exit__(kind, error, at)


def _unrecorded(folder: Path, kind: type[BaseException] | None, *_: object) -> None:
    """Of a run that was interrupted nothing stays."""
    if kind is KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
