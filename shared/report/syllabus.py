"""The syllabus, and which of its topics the runs demonstrate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from shared.errors import ConfigurationError
from shared.record import RunRecord, covered


@dataclass(frozen=True, slots=True)
class Topic:
    """One id and its text."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Topics under one heading."""

    title: str
    topics: tuple[Topic, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One lab's part: `lab` is the name of its folder."""

    id: str
    title: str
    lab: str
    goal: str
    groups: tuple[Group, ...]

    @property
    def topics(self) -> tuple[Topic, ...]:
        return tuple(topic for group in self.groups for topic in group.topics)


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim that held and demonstrates a topic; `lab` and `experiment` say whose."""

    lab: str
    experiment: str
    text: str


def read(path: Path) -> tuple[Section, ...]:
    """The sections of a syllabus file. Raises ConfigurationError naming the file when it cannot be used."""
    try:
        return tuple(map(_section, yaml.safe_load(path.read_text(encoding="utf-8"))["sections"]))
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a syllabus: {error}") from error


def proofs(records: Iterable[RunRecord]) -> dict[str, list[Proof]]:
    """Topic id -> the claims that held and demonstrate it."""
    found: dict[str, list[Proof]] = {}
    for record in records:
        whose = f"{record.lab}/{record.experiment}: "
        for topic, claims in covered([record]).items():
            texts = (claim.removeprefix(whose) for claim in claims)
            found.setdefault(topic, []).extend(Proof(record.lab, record.experiment, text) for text in texts)
    return found


def _section(raw: Mapping[str, Any]) -> Section:
    groups = (
        Group(group["title"], tuple(Topic(item["id"], item["text"]) for item in group["items"]))
        for group in raw["groups"]
    )
    return Section(raw["id"], raw["title"], PurePosixPath(raw["folder"]).name, raw.get("goal", ""), tuple(groups))
