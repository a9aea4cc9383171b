"""What the index and the pages are given: runs with their pages, labs, totals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from shared.record import Claim, RunRecord
from shared.report.syllabus import Proof, Section
from shared.report.words import file_name, spoken

KEY_CLAIMS = 4
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """A run record, the folder where its histories lie, and its page. Those of committed evidence may not be there."""

    folder: Path
    record: RunRecord
    committed: bool = False

    @property
    def page(self) -> str:
        return page_of(self.record.lab, self.record.experiment)

    def key_claims(self, told: Sequence[T]) -> list[tuple[Claim, T]]:
        """Claims with what is told of each, failed ones first: nobody should have to open a page to learn of one."""
        pairs = zip(self.record.claims, told, strict=True)
        return sorted(pairs, key=lambda pair: pair[0].holds)[:KEY_CLAIMS]

    @property
    def command(self) -> str:
        record = self.record
        return f"lab run {record.lab}/{record.experiment} --scale {record.scale} --seed {record.seed}"


def page_of(lab: str, experiment: str) -> str:
    return file_name("run", lab, experiment)


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab's part of the index. `section` is None for a lab that the syllabus does not know."""

    name: str
    section: Section | None
    runs: tuple[Run, ...]
    covered: int

    @property
    def title(self) -> str:
        return self.section.title if self.section else spoken(self.name)


def labs(sections: Sequence[Section], runs: Sequence[Run], proofs: dict[str, list[Proof]]) -> tuple[Lab, ...]:
    """The syllabus' labs in its order, run or not, then any others."""
    known = {section.lab: section for section in sections}
    names = dict.fromkeys([*known, *(run.record.lab for run in runs)])
    return tuple(
        Lab(
            name=name,
            section=known.get(name),
            runs=tuple(run for run in runs if run.record.lab == name),
            covered=covered_in(known[name], proofs) if name in known else 0,
        )
        for name in names
    )


def covered_in(section: Section, proofs: dict[str, list[Proof]]) -> int:
    """How many of a section's topics a claim that held demonstrates."""
    return sum(topic.id in proofs for topic in section.topics)


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers at the head of the index."""

    labs: int
    all_labs: int
    experiments: int
    held: int
    failed: int
    covered: int
    topics: int


def totals(found: Sequence[Lab]) -> Totals:
    """Sums over all labs."""
    records = [run.record for lab in found for run in lab.runs]
    claims = list(chain.from_iterable(record.claims for record in records))
    held = sum(claim.holds for claim in claims)
    return Totals(
        labs=sum(bool(lab.runs) for lab in found),
        all_labs=len(found),
        experiments=len(records),
        held=held,
        failed=len(claims) - held,
        covered=sum(lab.covered for lab in found),
        topics=sum(len(lab.section.topics) for lab in found if lab.section),
    )
