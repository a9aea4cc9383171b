"""Servers that run: killed, seen as died, brought back with their data, and stopped, but only what is ours."""

import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from shared.cli import cli
from shared.errors import ConfigurationError, LabError, NotAvailable, NotControllable, ServerError
from shared.servers.catalogue import SERVERS, find
from shared.servers.handle import own_instance
from shared.tests.servers.lab import Lab, gone, one_sentence

WORDS = "create table kept as select 42 as answer"


@pytest.mark.fault
def test_killed_server_is_shown_as_died_with_its_log_and_comes_back_with_its_data(lab: Lab) -> None:
    url = lab.stack().up(["postgres"])["postgres"].url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(WORDS)
    lab.stack().control("postgres").kill()
    seen = lab("status", "--json")
    (died,) = (status for status in json.loads(seen.stdout) if status["state"] == "died")
    assert (seen.returncode, died["server"]) == (1, "postgres")
    assert died["detail"].endswith(f"its log: {lab.folder('postgres') / 'postgres.log'}")
    lab.stack().up(["postgres"])
    with psycopg.connect(url) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


@pytest.mark.fault
def test_status_table_says_died_and_names_the_log(lab: Lab) -> None:
    lab.stack().up(["postgres"])
    lab.stack().control("postgres").kill()
    done = CliRunner(env=lab.env).invoke(cli, ["status"])
    assert done.exit_code == 1
    assert str(lab.folder("postgres") / "postgres.log") in done.stdout


def test_down_stops_what_up_started_and_nothing_else(lab: Lab) -> None:
    others = lab.settings(HOME=str(lab.home / "other"))
    with own_instance("postgres", others) as stranger:
        lab.stack().up(["postgres"])
        ours = lab.process("postgres")
        assert lab("down").stdout.startswith("postgres stopped in ")
        assert gone(ours)
        assert find("postgres").probe(stranger.endpoint)
    assert lab.stack().down() == []


def test_clean_removes_the_data_and_down_alone_keeps_it(lab: Lab) -> None:
    lab.stack().up(["postgres"])
    lab.stack().down()
    assert (lab.folder("postgres") / "data" / "PG_VERSION").exists()
    lab.stack().down(clean=True)
    assert not lab.folder("postgres").exists()


def test_up_of_what_runs_says_so_and_starts_nothing(lab: Lab) -> None:
    lab.stack().up(["postgres"])
    before = lab.process("postgres")
    done = CliRunner(env=lab.env).invoke(cli, ["up", "postgres"])
    assert done.stdout.startswith("postgres runs already\n")
    assert lab.process("postgres") == before


def test_borrowed_server_is_stopped_by_who_had_it_started_and_by_nobody_else(lab: Lab) -> None:
    with lab.stack().borrowed(["postgres"]):
        with lab.stack().borrowed(["postgres"]) as endpoints:
            assert set(endpoints) == {"postgres"}
        assert lab.stack().find("postgres")
    assert (lab.stack().find("postgres"), lab.left()) == (None, [])


def test_server_of_the_user_is_used_and_never_started_or_stopped(lab: Lab) -> None:
    with own_instance("postgres", lab.settings(HOME=str(lab.home / "other"))) as theirs:
        url = theirs.endpoint.url
        run = CliRunner(env={**lab.env, "LAB_POSTGRES": url})
        assert run.invoke(cli, ["up", "postgres"]).stdout.startswith(f"postgres is yours, at {url}")
        seen = json.loads(run.invoke(cli, ["status", "--json"]).stdout)[0]
        assert (seen["state"], seen["provider"], seen["version"]) == ("yours", "yours", find("postgres").version)
        assert lab.stack(POSTGRES=url).down() == []
        assert find("postgres").probe(theirs.endpoint)
    assert not lab.folder("postgres").exists()


def test_server_of_the_user_cannot_be_controlled(lab: Lab) -> None:
    with pytest.raises(NotControllable, match="kafka: it is your own; the labs never kill or pause it"):
        lab.stack(KAFKA="example.org:9092").control("kafka")


def test_server_of_the_user_that_does_not_answer_is_said_to_in_one_line(lab: Lab) -> None:
    url = f"postgresql://postgres@127.0.0.1:{lab.env['LAB_POSTGRES_PORT']}/postgres"
    seen = lab.stack(POSTGRES=url).status()[0]
    assert (seen.state, seen.url) == ("yours", url)
    assert seen.detail.startswith("does not answer: ")
    assert "\n" not in seen.detail


def test_client_settings_of_the_user_reach_the_client(lab: Lab) -> None:
    stack = lab.stack(KAFKA="127.0.0.1:9", KAFKA_OPT_NO_SUCH_SETTING="1")
    assert stack.endpoint("kafka").options == {"no.such.setting": "1"}
    assert 'No such configuration property: "no.such.setting"' in stack.status()[1].detail


def test_connect_is_given_the_users_kafka_and_its_credentials(lab: Lab) -> None:
    given = {"KAFKA": "example.org:9092", "KAFKA_OPT_SASL_USERNAME": "me", "KAFKA_OPT_SASL_PASSWORD": "secret"}
    stack = lab.stack(**given)
    place = stack._place(find("connect"))
    find("connect").commands(place)
    properties = (place.folder / "connect.properties").read_text()
    assert "bootstrap.servers=example.org:9092\n" in properties
    assert 'username="me" password="secret"' in properties


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (("up", "nonsense"), {}, f"There is no server 'nonsense'. There are: {', '.join(SERVERS)}."),
        (("down", "nonsense"), {}, f"There is no server 'nonsense'. There are: {', '.join(SERVERS)}."),
        (("logs", "nonsense"), {}, f"There is no server 'nonsense'. There are: {', '.join(SERVERS)}."),
        (("up", "kafka"), {"PROVIDER": "nonsense"}, "LAB_PROVIDER=nonsense is none of auto, native, compose."),
        (("up", "kafka"), {"KAFKA_PORT": "http"}, "LAB_KAFKA_PORT=http is not a port number."),
        (("up", "kafka"), {"KAFKA_CONTROLLER_PORT": "65536"}, "LAB_KAFKA_CONTROLLER_PORT=65536 is not a port number."),
        (("logs", "kafka"), {}, "kafka has no log here: it was never started by `lab up`."),
    ],
)
def test_wrong_word_is_one_sentence_with_the_right_ones(
    lab: Lab, words: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    env = {**lab.env, **{f"LAB_{name}": value for name, value in variables.items()}}
    done = CliRunner(env=env).invoke(cli, words)
    assert isinstance(done.exception, LabError)
    assert str(done.exception) == said


def test_port_of_no_number_that_python_knows_is_refused(lab: Lab) -> None:
    for port in ("0", "-1", "65536", "²", "1e3"):
        with pytest.raises(ConfigurationError, match=r"LAB_POSTGRES_PORT=.* is not a port number"):
            lab.settings(POSTGRES_PORT=port).port("postgres", "client", 1)


def test_unknown_endpoint_names_the_command_that_starts_it(lab: Lab) -> None:
    for ask in (lab.stack().endpoint, lab.stack().control):
        with pytest.raises(ServerError, match=r"kafka: it does not run\. Start it with: lab up kafka"):
            ask("kafka")


def test_eventstoredb_without_docker_says_what_to_do(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(lab.env, "PATH", str(tmp_path))
    sentence = one_sentence(lab("up", "eventstoredb", PROVIDER="auto"))
    assert sentence.endswith("start it with --provider compose, where Docker runs.")
    with pytest.raises(NotAvailable, match="container image only"):
        lab.stack().up(["eventstoredb"])


def test_home_that_cannot_be_written_is_one_sentence_with_the_remedy(lab: Lab) -> None:
    (lab.home / "file").touch()
    with pytest.raises(ConfigurationError, match=r"/file cannot be used \(.*\); set LAB_HOME to a folder"):
        lab.stack(HOME=str(lab.home / "file")).up(["postgres"])


def test_logs_show_the_end_of_the_log_also_after_the_stop(lab: Lab) -> None:
    lab.stack().up(["postgres"])
    lab.stack().down()
    done = CliRunner(env=lab.env).invoke(cli, ["logs", "postgres", "-n", "1"])
    assert f"==> {lab.folder('postgres') / 'postgres.log'} <==" in done.stdout
    assert "database system is shut down" in done.stdout
