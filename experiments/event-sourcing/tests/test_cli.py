"""lab sourcing lag | parked | retry | rebuild."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sourcing.cli import cli
from sourcing.projection import Projector, install
from sourcing.shop.read_models import PROJECTIONS, OrderSummary, ProductSales
from sourcing.stage import badevents, lives
from sourcing.stage.traffic import wrong_rows
from typer.testing import CliRunner, Result

from shared.errors import ConfigurationError
from shared.postgres import Connection
from shared.servers.server import Endpoint

Lab = Callable[..., Result]
SUMMARY = OrderSummary()


@pytest.fixture
def lab(postgres: Endpoint, unique: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """`lab sourcing`, on the test's own schema."""
    monkeypatch.setattr("sourcing.cli.console.width", 200)
    where = ["--schema", unique, "--dsn", postgres.url]
    return lambda *words: CliRunner().invoke(cli, [*words, *where])


@pytest.fixture
def parked(connection: Connection) -> None:
    """Some orders and a bad event, read by one projection; the others have read nothing."""
    install(connection, *PROJECTIONS.values())
    lives.write(connection, 7, 5)
    badevents.write(connection, ["order-too-large"])
    Projector(connection, SUMMARY).catch_up()
    Projector(connection, ProductSales(), batch=10).step()


@pytest.mark.usefixtures("parked")
def test_lag_shows_each_projection_in_events_and_seconds(lab: Lab) -> None:
    lines = [line.split() for line in lab("lag").stdout.splitlines()]
    assert lines[1] == ["order_summary", "1", "0", "0.0", "2"]
    assert lines[2][0] == "product_sales"
    assert int(lines[2][2]) > 0


@pytest.mark.usefixtures("parked")
def test_parked_names_the_event_and_the_reason(lab: Lab) -> None:
    lines = lab("parked").stdout.splitlines()
    assert "NumericValueOutOfRange: bigint out of range" in lines[1]
    assert lines[2].split()[:4] == ["order_summary", "order-too-large", "3", "LineAdded"]


@pytest.mark.usefixtures("parked")
def test_retry_says_what_is_handled_and_what_is_still_parked(lab: Lab, connection: Connection) -> None:
    shown = lab("retry", "order_summary", "--all").stdout
    assert shown.startswith("0 handled\n2 still parked: order-too-large NumericValueOutOfRange")
    connection.execute(
        "update parked_events set data = replace(encode(data, 'escape'), '9223372036854775808', '5')::bytea"
    )
    assert lab("retry", "order_summary", "order-too-large").stdout == "2 handled\n"


@pytest.mark.usefixtures("parked")
def test_rebuild_makes_the_read_model_anew(lab: Lab, connection: Connection) -> None:
    connection.execute("update order_summary set total = 0")
    shown = lab("rebuild", "order_summary").stdout
    assert "order_summary rebuilt from" in shown
    assert ", 2 parked" in shown
    assert wrong_rows(connection, but=badevents.BAD) == 0


@pytest.mark.usefixtures("parked")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retry", "nonsense", "--all"], "there is no projection 'nonsense'; there are: order_summary, "),
        (["retry", "order_summary"], "name streams .* or say --all"),
        (["retry", "order_summary", "order-1"], "nothing of stream 'order-1' is parked here"),
        (["rebuild", "order_summary", "--stop"], "stopped before event 2 of stream 'order-too-large'"),
    ],
)
def test_what_cannot_be_done_is_a_clear_error(words: list[str], message: str, lab: Lab) -> None:
    failed = lab(*words)
    assert failed.exit_code == 1
    with pytest.raises(type(failed.exception or Exception()), match=message):
        raise failed.exception or Exception


def test_a_schema_without_projections_is_a_clear_error(postgres: Endpoint) -> None:
    done = CliRunner().invoke(cli, ["lag", "--schema", "nowhere", "--dsn", postgres.url])
    assert isinstance(done.exception, ConfigurationError)
    assert "there is no schema 'nowhere'" in str(done.exception)


def test_the_commands_are_mounted_as_lab_sourcing() -> None:
    command = [str(Path(sys.executable).parent / "lab"), "sourcing", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in ("lag", "parked", "retry", "rebuild"))
