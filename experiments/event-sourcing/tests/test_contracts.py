"""The contract of the events: red when an old one cannot be read any more, or a new one is not what was agreed.

To change an event: raise its `schema_version`, add the step from the old one, and make the new one golden
(`contracts.keep`). Golden files are never edited.
"""

from pathlib import Path

import msgspec
import pytest
from sourcing.event import Data, NewEvent, Recorded
from sourcing.evolution import contracts
from sourcing.evolution.schemas import shaped
from sourcing.shop.evolved import STRONG, sample, upcasters
from sourcing.upcasting import Upcasters

from shared.errors import ConfigurationError

GOLDEN = Path(__file__).with_name("golden")


def breaches(steps: Upcasters | None = None, written: list[NewEvent] | None = None) -> list[str]:
    steps = steps or upcasters()
    return contracts.broken(contracts.load(GOLDEN), steps, shaped(steps, STRONG), written or sample())


def renamed(event: NewEvent, old: str, new: str) -> NewEvent:
    """The event as a program writes it in which somebody renamed a field."""
    return NewEvent(
        event.type, {new if key == old else key: value for key, value in event.data.items()}, event.schema_version
    )


def test_the_contract_holds() -> None:
    assert breaches() == []


def test_every_version_ever_written_has_its_golden_event() -> None:
    assert {golden.shape for golden in contracts.load(GOLDEN)} == upcasters().shapes


def test_a_renamed_field_breaks_the_contract() -> None:
    written = [renamed(event, "cents", "amount") for event in sample()]
    found = breaches(written=written)
    assert [breach.partition(":")[0] for breach in found] == ["LineAdded.v3", "OrderPaid.v2"]


def test_a_step_that_cuts_cents_off_breaks_the_contract() -> None:
    steps = Upcasters({"LineAdded": 2})
    steps.step("LineAdded", 1)(lambda data: {"product": "tea", "quantity": 2, "cents": int(data["price"] * 100)})
    [golden] = [golden for golden in contracts.load(GOLDEN) if golden.shape == ("LineAdded", 1)]
    golden = msgspec.structs.replace(golden, reads_as=[("LineAdded", {"product": "tea", "quantity": 2, "cents": 1999})])
    found = contracts.broken([golden], steps, steps, [])
    assert any("'cents': 1998" in breach for breach in found)


def test_a_lost_step_breaks_the_contract() -> None:
    assert any(breach.startswith("LineAdded.v1: cannot be read") for breach in breaches(Upcasters(STRONG.versions)))


def test_a_version_raised_without_a_golden_event_breaks_the_contract() -> None:
    steps = upcasters()
    steps.current["OrderPlaced"] = 2
    steps.step("OrderPlaced", 1)(dict)
    assert "OrderPlaced.v2: no golden event" in breaches(steps)
    assert "OrderPlaced.v1: written, and the current version is 2" in breaches(steps)


def test_an_event_that_no_command_writes_breaks_the_contract() -> None:
    written = [event for event in sample() if event.type != "OrderShipped"]
    assert breaches(written=written) == ["OrderShipped.v1: the program's commands did not write one"]


def test_a_golden_event_is_made_once_and_never_changed(tmp_path: Path) -> None:
    made = contracts.keep(tmp_path, sample(), upcasters())
    bytes_ = [path.read_bytes() for path in made]
    changed = [renamed(event, "cents", "amount") for event in sample()]
    assert contracts.keep(tmp_path, changed, upcasters()) == []
    assert [path.read_bytes() for path in made] == bytes_


@pytest.mark.parametrize("text", ["{", '{"type": "A", "schema_version": "1"}'])
def test_a_file_that_is_no_golden_event_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "A.v1.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"A\.v1\.json is not a golden event"):
        contracts.load(tmp_path)


def test_a_golden_event_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    contracts.keep(tmp_path, sample()[:1], upcasters())[0].rename(tmp_path / "Other.v1.json")
    with pytest.raises(ConfigurationError, match=r"Other\.v1\.json holds OrderPlaced\.v1"):
        contracts.load(tmp_path)


def test_the_bytes_are_held_not_their_meaning() -> None:
    """`1999.0` for `1999` is the same number to Python, and to no strict reader."""

    def read(event: Recorded) -> list[tuple[str, Data]]:
        return list(upcasters()(event))

    written = [NewEvent(event.type, {**event.data, "cents": 1999.0}, event.schema_version) for event in sample()[1:2]]
    found = contracts.broken(contracts.load(GOLDEN), upcasters(), read, [*sample()[:1], *written, *sample()[2:]])
    assert len(found) == 1
