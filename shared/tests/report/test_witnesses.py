"""A claim leads to the finding that it speaks of, and to none where its history has only others."""

from pathlib import Path

import pytest

from shared.record import Claim
from shared.report.pictures import HistoryView, histories
from shared.report.views import Run
from shared.report.witnesses import witness
from shared.tests.report import samples


@pytest.fixture
def views(tmp_path: Path) -> list[HistoryView]:
    """A wrong way that loses one event and announces one that never was, and a right way with doubled deliveries."""
    wrong = samples.recorded(tmp_path, "wrong", samples.dual_write(), wrong_way=True, variant="dual write")
    right = samples.recorded(tmp_path, "right", samples.relay_killed(), variant="outbox")
    return list(histories(Run(tmp_path, samples.record(histories=(wrong, right)))))


def claim(text: str, variant: str = "dual write", fact: str = "", holds: bool = True) -> Claim:
    return Claim(text=text, holds=holds, wrong_way=holds, variant=variant, fact=fact)


def test_a_wrong_way_claim_leads_to_the_arrow_of_the_anomaly_that_it_speaks_of(views: list[HistoryView]) -> None:
    lost = witness(claim("the event is lost"), views)
    phantom = witness(claim("it announces an event that never was"), views)
    assert lost
    assert phantom
    assert ("never delivered" in lost.text, "killed after commit" in lost.text) == (True, True)
    assert "did not find its row" in phantom.text
    assert lost.link != phantom.link


def test_a_failed_claim_leads_to_an_anomaly_of_its_own_variant(views: list[HistoryView]) -> None:
    told = witness(claim("no event comes twice", "outbox", holds=False), views)
    assert told
    assert told.link.startswith("#h2-a")
    assert "in between relay was killed after publish" in told.text


def test_a_claim_of_what_no_history_shows_has_no_witness(views: list[HistoryView]) -> None:
    assert witness(claim("far slower than the others"), views) is None
    assert witness(claim("an event is lost", "another variant"), views) is None
    assert witness(Claim(text="nothing is lost", holds=True, variant="dual write"), views) is None


def test_the_fact_decides_between_kinds_of_which_the_words_fit_both(views: list[HistoryView]) -> None:
    told = witness(claim("events come twice", "outbox", fact="3 delivered twice"), views)
    assert told
    assert "was delivered to" in told.text
