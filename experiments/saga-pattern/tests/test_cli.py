"""lab saga list | show | messages | retry | skip | compensate."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from msgspec.structs import replace
from saga.cli import cli as app
from saga.orchestrator import machine
from saga.orchestrator.definition import Definition
from saga.orchestrator.machine import Answered, Happening, NotPossible, SagaState
from saga.orchestrator.operator import NoSuchMessage, NoSuchSaga
from saga.orchestrator.store import Saga, Store, create
from saga.order import STEPS, Action, Order

from shared.kafka import read_all
from shared.postgres import connect
from shared.servers.server import Endpoint

Lab = Callable[..., str]
cli = typer.main.get_command(app)
PARKED = (*map(Answered, STEPS[:2]), Answered(Action.CHARGE, "no money"), Answered(Action.RELEASE, "never"))


@pytest.fixture
def lab(postgres: Endpoint, unique: str, capsys: pytest.CaptureFixture[str]) -> Lab:
    """The commands below `lab saga`, on this test's orchestrator, in this process: what they print."""

    def run(*words: str, schema: str = unique) -> str:
        cli([*words, "--schema", schema, "--dsn", postgres.url], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def store(schema: str, quick: Definition) -> Iterator[Store]:
    create(schema, quick)
    with connect(schema) as connection:
        yield Store(connection)


def stored(store: Store, definition: Definition, order: Order, *happenings: Happening) -> SagaState:
    """A saga of the order to which all this has happened."""
    turn = machine.begin(definition, order.id, 0.0)
    for happening in happenings:
        turn = machine.happen(definition, turn.state, happening, 0.0)
    assert store.add(Saga(turn.state, definition.name, definition.version, b"{}"), turn.note)
    return turn.state


def status(store: Store, order: Order) -> tuple[str, int]:
    state = store.lock([order.id])[order.id].state
    return state.status, state.step


def test_list_shows_what_waits_and_why(lab: Lab, store: Store, quick: Definition, order: Order) -> None:
    assert lab("list") == "no saga runs or waits\n"
    stored(store, quick, order, *PARKED)
    shown = lab("list")
    assert order.id in shown
    assert "release-stock refused: never" in shown


def test_list_leaves_out_what_has_ended_unless_asked(lab: Lab, store: Store, quick: Definition, order: Order) -> None:
    stored(store, quick, order, *map(Answered, STEPS))
    assert order.id not in lab("list")
    assert "completed" in lab("list", "--all")


def test_list_shows_those_that_wait_first_and_how_many_it_leaves_out(
    lab: Lab, store: Store, quick: Definition, order: Order
) -> None:
    with store.transaction():
        for number in range(101):
            stored(store, quick, replace(order, id=f"runs-{number:03d}"))
    stored(store, quick, replace(order, id="waits"), *PARKED)  # the youngest
    header, first, *_, last = lab("list").splitlines()
    assert (header.split()[0], first.split()[0], last) == ("saga", "waits", "2 more (--all shows them)")
    assert "more (" not in lab("list", "--all")


def test_show_tells_the_history(lab: Lab, store: Store, quick: Definition, order: Order) -> None:
    stored(store, quick, order)
    assert "begun: ask for place-order, attempt 1" in lab("show", order.id)
    with pytest.raises(NoSuchSaga, match="there is no saga 'nobody'"):
        lab("show", "nobody")


@pytest.mark.parametrize(("verb", "step"), [("retry", 1), ("skip", 0)])
def test_an_operator_sets_a_parked_saga_going(
    verb: str, step: int, lab: Lab, store: Store, quick: Definition, order: Order
) -> None:
    stored(store, quick, order, *PARKED)
    assert lab(verb, order.id) == f"{order.id}: compensating\n"
    assert status(store, order) == ("compensating", step)


def test_an_operator_has_a_running_saga_compensated(lab: Lab, store: Store, quick: Definition, order: Order) -> None:
    stored(store, quick, order, Answered(Action.PLACE))
    assert lab("compensate", order.id) == f"{order.id}: compensating\n"
    assert f"{order.id}" in lab("list")


def test_what_makes_no_sense_is_a_clear_error(lab: Lab, store: Store, quick: Definition, order: Order) -> None:
    stored(store, quick, order, *map(Answered, STEPS))
    with pytest.raises(NotPossible, match=f"cannot compensate saga '{order.id}': it is completed"):
        lab("compensate", order.id)
    with pytest.raises(NoSuchSaga, match="there is no saga 'nobody'"):
        lab("retry", "nobody")


def test_messages_that_were_put_aside_are_shown(lab: Lab, store: Store) -> None:
    assert lab("messages") == "nothing was put aside\n"
    put = "insert into parked_messages (topic, partition, \"offset\", headers, reason) values ('t', 0, 7, '', %s)"
    store.connection.execute(put, ["not a reply"])
    assert "not a reply" in lab("messages")
    assert "1 messages put aside" in lab("list")


def test_what_others_wrote_is_shown_as_it_is(lab: Lab, store: Store, quick: Definition, order: Order) -> None:
    """A bracket is no markup of ours: a reason with one in it would end the operator's list for ever."""
    stored(store, quick, replace(order, id="[/b]"), *PARKED[:-1], Answered(Action.RELEASE, "no [/such] thing"))
    assert "no [/such] thing" in lab("list")
    assert "no [/such] thing" in lab("show", "[/b]")
    assert lab("retry", "[/b]") == "[/b]: compensating\n"


ASIDE = """
insert into parked_messages (topic, partition, "offset", value, headers, reason) values (%s, 0, %s, %s, %s, '')
"""


def test_messages_that_were_put_aside_are_dropped_or_sent_again(
    lab: Lab, store: Store, kafka: Endpoint, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KAFKA", kafka.url)
    name = topic()
    for offset in range(2):
        store.connection.execute(ASIDE, [name, offset, b"\xfc", b'[["x",{"base64":"/A=="}]]'])
    assert [lab("discard", "1"), lab("resend", "2")] == ["1: gone\n", "2: sent again\n"]
    assert [(one.value(), one.headers()) for one in read_all(kafka, name)] == [(b"\xfc", [("x", b"\xfc")])]
    assert lab("messages") == "nothing was put aside\n"
    with pytest.raises(NoSuchMessage, match="no message 2"):
        lab("discard", "2")


def test_a_schema_without_an_orchestrator_is_a_clear_error(postgres: Endpoint) -> None:
    """As the user has it, by the `lab` command."""
    command = [str(Path(sys.executable).parent / "lab"), "saga", "list", "--schema", "nowhere", "--dsn", postgres.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "error: there is no schema 'nowhere'" in done.stderr) == (1, True)
