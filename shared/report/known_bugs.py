"""Claims that reproduce a public report: which, on what it ran, and how it ended."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from shared.record import Claim, Environment, RunRecord

ISSUE = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")
# Libraries that carry the one which a report is about.
CARRIERS = {"librdkafka": "confluent-kafka"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A public report as the claim names it; `url` is empty where its repository is not known."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class KnownBug:
    """One claim with its sources, the versions that it ran on, and whose it is."""

    references: tuple[Reference, ...]
    claim: Claim
    versions: str
    lab: str
    experiment: str


def known_bugs(records: Iterable[RunRecord]) -> list[KnownBug]:
    """Every claim that names a source, in the order of the records."""
    return [
        KnownBug(
            references(claim.source), claim, versions(record.environment, claim.source), record.lab, record.experiment
        )
        for record in records
        for claim in record.claims
        if claim.source
    ]


def references(source: str) -> tuple[Reference, ...]:
    """The reports of a source ("a/b#1, c/d#2" names two); linked where they name owner and repository."""
    return tuple(Reference(text, _url(text)) for text in filter(None, map(str.strip, source.split(","))))


def versions(environment: Environment, source: str) -> str:
    """The servers of the run, the libraries that the source is about, and Python."""
    about = source.lower()
    wanted = {carrier for name, carrier in CARRIERS.items() if name in about}
    libraries = (pair for pair in environment.libraries.items() if pair[0] in wanted or pair[0].lower() in about)
    named = [*environment.servers.items(), *libraries, ("Python", environment.python)]
    return ", ".join(f"{name} {version}" for name, version in named)


def meaning(claim: Claim) -> str:
    """A claim's verdict in words: of a wrong way it is good news that it fails."""
    if claim.wrong_way:
        return "wrong way fails, as expected" if claim.holds else "wrong way did not fail"
    return "holds" if claim.holds else "does not hold"


def _url(text: str) -> str:
    found = ISSUE.fullmatch(text)
    return f"https://github.com/{found[1]}/issues/{found[2]}" if found else ""
