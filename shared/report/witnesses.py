"""Which finding of which history stands for a claim that failed, or that says that the wrong way fails."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shared.checkers import Kind
from shared.record import Claim
from shared.report.pictures import HistoryView, Story

# How claims and their facts speak of each kind, the gravest first. A claim of which no word fits has no witness:
# an anomaly that its variant had besides would only mislead.
SPOKEN: dict[str, re.Pattern[str]] = {
    kind: re.compile(words, re.I)
    for kind, words in {
        Kind.LOST: r"\b(?:los(?:t|es?|ing)|miss(?:ing|ed|es)?|gone|drop(?:s|ped)|forgets|not published|passes over)\b"
        r"|\bnever (?:comes|came|sent|arrives|delivered|published)|is never sent",
        Kind.DUPLICATE_EFFECT: r"\b(?:twice|doubled?|effects?|again|duplicates?|absorbed)\b",
        Kind.PHANTOM: r"\b(?:phantoms?|never was|not exist|nobody wrote|made up)\b",
        Kind.ABORTED_READ: r"\b(?:refuse[sd]?|aborted|rolled back|failed write)\b",
        Kind.REORDERED: r"\border(?:ed)?\b.*\b(?:lost|kept)|out of order|overtakes?|later event|reorder|in their order",
        Kind.DUPLICATE_DELIVERY: r"\b(?:twice|doubled?|doubles|again|duplicates?|redeliver\w*|every event)\b",
        Kind.SKIPPED: r"\b(?:skip(?:s|ped)?|passes over)\b",
        Kind.BACKWARDS: r"\b(?:backwards?|rewinds?|rewound)\b",
    }.items()
}
NUMBER = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True)
class Witness:
    """What a history shows of a claim. `link` leads to it on the run's page: to its arrow, or where it is not
    `drawn` to its history.
    """

    text: str
    link: str
    drawn: bool


def witness(claim: Claim, views: Sequence[HistoryView]) -> Witness | None:
    """The finding that stands for a claim; None for one that held, or of which no history tells."""
    if claim.holds and not claim.wrong_way:
        return None
    told = max(_candidates(claim, views), key=lambda found: found[0], default=None)
    if not told:
        return None
    _, view, story = told
    return Witness(story.text, f"#{view.uid}-{story.anchor or 'name'}", bool(story.anchor))


def witnesses(claims: Iterable[Claim], views: Sequence[HistoryView]) -> list[Witness | None]:
    """One for each claim, in their order."""
    return [witness(claim, views) for claim in claims]


def _candidates(claim: Claim, views: Sequence[HistoryView]) -> Iterator[tuple[tuple[int, ...], HistoryView, Story]]:
    """Findings of the claim's own variant whose kind the claim speaks of, each with how well it fits.

    Best fits a kind of which the fact gives the number, then the one that is spoken of most, then the gravest.
    """
    spoken = {kind: len(words.findall(f"{claim.text} {claim.fact}")) for kind, words in SPOKEN.items()}
    counts = {number.replace(",", "") for number in NUMBER.findall(claim.fact)}
    for place, view in enumerate(views):
        for story in view.stories if view.summary.variant == claim.variant else ():
            kind, at = story.finding.kind, story.finding.at
            if spoken.get(kind):
                counted = str(view.summary.counts.get(kind)) in counts
                yield (counted, spoken[kind], -list(SPOKEN).index(kind), bool(story.anchor), -place, -at), view, story
