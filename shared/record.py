"""The run record, `run.json`: what one run of one experiment claimed, measured and ran on.

The only thing that the report, the evidence and the coverage know of a run.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ConfigurationError
from shared.files import write_whole


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Claim(_Value):
    """One sentence that the run asserted."""

    text: str
    holds: bool
    topics: tuple[str, ...] = ()  # syllabus ids that it demonstrates
    variant: str = ""  # which implementation it is about
    wrong_way: bool = False  # True: the claim is that the popular wrong way does fail
    fact: str = ""  # what was seen, in a few words: "0 of 1,000 lost"
    source: str = ""  # the public report that it reproduces: "librdkafka#5423"


class Figure(_Value):
    """One measured value. Figures of one name make one chart: bars by variant, or lines where there is an `x`."""

    name: str
    value: float  # the median where n > 1
    unit: str
    variant: str = ""
    wrong_way: bool = False
    x: str | float | None = None
    x_label: str = ""
    n: int = 1
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    low: float | None = None
    high: float | None = None
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)


class Finding(_Value):
    """An anomaly as the checkers found it (shared.checkers.Anomaly)."""

    kind: str
    value: str
    key: str
    process: str
    at: int
    detail: str


class HistorySummary(_Value):
    """One judged history; `path` is relative to the run's folder."""

    name: str
    path: str
    variant: str = ""
    wrong_way: bool = False
    operations: int
    faults: int
    counts: dict[str, int]  # anomalies by kind, all of them
    findings: tuple[Finding, ...] = ()  # the first twenty of each kind


class NotPossible(_Value):
    """A step that the servers at hand do not allow (a team's own cluster is never killed)."""

    step: str
    reason: str


class Environment(_Value):
    """What the run ran on: compare figures only between like environments."""

    python: str
    platform: str
    cpus: int
    memory_gb: float
    load: float  # 1-minute load average when the run began
    fsync_ms: float  # median fdatasync of 8 kB on the run's disk
    commit: str
    libraries: dict[str, str]
    servers: dict[str, str]  # name -> "version (provider)"


class RunRecord(_Value):
    """One run."""

    lab: str
    experiment: str  # the script's name without .py
    title: str
    question: str
    topics: tuple[str, ...]
    started: datetime
    seconds: float
    scale: str
    seed: int
    environment: Environment
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    histories: tuple[HistorySummary, ...] = ()
    not_possible: tuple[NotPossible, ...] = ()
    sometimes: dict[str, bool] = Field(default_factory=dict)  # what chance decides -> whether it was seen in this run
    error: str = ""  # the sentence of the error that ended the run early

    @property
    def holds(self) -> bool:
        """Whether the run ended by itself, asserted something, and every claim held."""
        return not self.error and bool(self.claims) and all(claim.holds for claim in self.claims)

    @property
    def verdict(self) -> str:
        if not self.claims and self.not_possible and not self.error:
            return "not possible here"
        return "holds" if self.holds else "fails"

    def write(self, folder: Path) -> Path:
        """Write `run.json` into the folder, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "run.json"
        write_whole(path, self.model_dump_json(indent=1, exclude_defaults=True) + "\n")
        return path

    def as_json(self) -> str:
        """As JSON in ASCII, which every output can take."""
        return json.dumps(self.model_dump(mode="json"), indent=1)

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigurationError(f"{path} is not a run record: {error}") from error

    def figure(self, name: str, variant: str = "") -> Figure:
        """The figure of that name (and variant). Raises ConfigurationError when there is none: for cog blocks."""
        for figure in self.figures:
            if figure.name == name and variant in ("", figure.variant):
                return figure
        raise ConfigurationError(f"{self.lab}/{self.experiment} has no figure {name!r} of variant {variant!r}")


def records(experiment: Path) -> list[Path]:
    """The records below the folder of an experiment's runs, oldest first."""
    return sorted(experiment.glob("*/run.json"))


def latest(runs: Path) -> Iterator[tuple[Path, RunRecord]]:
    """The newest record of every experiment under `runs`, as (its folder, record), in the order lab, experiment."""
    for experiment in sorted(runs.glob("*/*")):
        if found := records(experiment):
            yield found[-1].parent, RunRecord.read(found[-1])


def covered(runs: Iterable[RunRecord]) -> dict[str, list[str]]:
    """Topic id -> the claims that held and demonstrate it, each as "lab/experiment: text"."""
    topics: dict[str, list[str]] = {}
    for record in runs:
        for claim in record.claims:
            for topic in claim.topics if claim.holds else ():
                topics.setdefault(topic, []).append(f"{record.lab}/{record.experiment}: {claim.text}")
    return topics
