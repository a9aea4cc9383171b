"""What an experiment shows in one line: what the popular wrong way did, and what the right way did instead."""

from dataclasses import dataclass

from shared.errors import ConfigurationError
from shared.record import Claim, RunRecord


@dataclass(frozen=True)
class Contrast:
    """Two claims of one run, each with what was seen."""

    record: RunRecord
    wrong: Claim
    right: Claim


def contrast(record: RunRecord) -> Contrast:
    """The run's first claim of a wrong way, and the first of a right way that is about the same topics.

    Of those with a fact. Raises ConfigurationError where there is no such pair.
    """
    told = [claim for claim in record.claims if claim.fact and claim.variant]
    for wrong in (claim for claim in told if claim.wrong_way):
        for right in (claim for claim in told if not claim.wrong_way):
            if set(wrong.topics) & set(right.topics):
                return Contrast(record, wrong, right)
    raise ConfigurationError(f"{record.lab}/{record.experiment} has no wrong way and right way about one topic")
