"""A server of the user's own that does not answer is said to in one sentence, before anything is started or changed."""

from collections.abc import Iterator
from contextlib import closing
from socket import socket

import pytest

from shared.errors import ServerError
from shared.servers import status
from shared.servers.catalogue import find
from shared.servers.catalogue.moto import Moto
from shared.servers.server import Endpoint
from shared.tests.servers.lab import Lab, one_sentence

POSTGRES = {
    "no such host": "postgresql://postgres@no.such.host.invalid/postgres",
    "nobody listens": "postgresql://postgres@127.0.0.1:1/postgres",
    "no such database": "postgresql://postgres@{address}/no_such_database",
    "no such user": "postgresql://nobody_at_all@{address}/postgres",
    "no encryption there": "{server}?sslmode=require",
    "no address": "my postgres",
    "no such word": "hots=127.0.0.1",
    "no port": "postgresql://postgres@127.0.0.1:port/postgres",
    "no such option": "{server}?no_such_option=1",
    "silence": "postgresql://postgres@127.0.0.1:{silent}/postgres",
    "another server": "postgresql://postgres@{kafka}/postgres",
}
OTHERS = {
    "no broker": ("kafka", "127.0.0.1:1"),
    "no host of a broker": ("kafka", "no.such.host.invalid"),
    "no address of a broker": ("kafka", "a:b:c"),
    "Postgres for Kafka": ("kafka", "{address}"),
    "no Connect": ("connect", "http://127.0.0.1:1"),
    "Connect without http": ("connect", "127.0.0.1:8083"),
    "Kafka for Connect": ("connect", "http://{kafka}"),
    "Kafka for Temporal": ("temporal", "{kafka}"),
    "no registry": ("registry", "http://no.such.host.invalid"),
    "nothing for the registry": ("registry", "http://"),
}
CASES = {name: ("postgres", url) for name, url in POSTGRES.items()} | OTHERS


@pytest.fixture(scope="module")
def places(postgres: Endpoint, kafka: Endpoint) -> Iterator[dict[str, str]]:
    """What stands in braces above; `silent` is a port on which somebody listens and says nothing."""
    with closing(socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        there = {"server": postgres.url, "address": postgres.url.partition("@")[2].partition("/")[0]}
        yield {**there, "kafka": kafka.url, "silent": str(silent.getsockname()[1])}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One try is enough to see what is said."""
    monkeypatch.setattr(status, "PATIENCE", 0.0)
    monkeypatch.setattr(status, "TRIES", 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "url"), CASES.values(), ids=CASES)
def test_wrong_address_is_one_sentence_and_nothing_is_started(
    lab: Lab, places: dict[str, str], name: str, url: str
) -> None:
    stack = lab.stack(**{name.upper(): url.format(**places)})
    with pytest.raises(ServerError) as caught, stack.borrowed(["moto", name]):
        pass
    said = str(caught.value)
    assert said.startswith(f"{name}: your own, which LAB_{name.upper()} names, does not answer: ")
    assert ("\n" in said, said.endswith(": "), lab.left(), list(lab.home.iterdir())) == (False, False, [], [])


@pytest.mark.parametrize(("name", "url"), [("postgres", POSTGRES["nobody listens"]), ("kafka", "127.0.0.1:1")])
def test_run_says_what_status_says(lab: Lab, name: str, url: str) -> None:
    said = one_sentence(lab("run", "outbox-pattern/1", **{name.upper(): url}))
    [seen] = [state for state in lab.stack(**{name.upper(): url}).status() if state.server == name]
    assert said == f"{name}: your own, which LAB_{name.upper()} names, {seen.detail}"


def test_server_that_wakes_up_while_it_is_asked_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a database far away does that sleeps while nobody needs it."""
    tries = iter((False, False, True))
    monkeypatch.setattr(Moto, "probe", lambda *_: next(tries) or 1 / 0)
    status.require(find("moto"), Endpoint("moto", "http://far.away", "yours"))
    assert list(tries) == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:s3cret@db:5432/shop?sslmode=require", "postgresql://me:***@db:5432/shop?sslmode=require"),
        ("postgresql://me@db/shop?password=s3cret&port=5432", "postgresql://me@db/shop?password=***&port=5432"),
        ("host=db password='s3 \\' cret' user=me sslpassword=x", "host=db password=*** user=me sslpassword=***"),
        ("postgresql://me@db/shop", "postgresql://me@db/shop"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
    ],
)
def test_no_password_is_shown(address: str, shown: str) -> None:
    assert status.without_password(address) == shown


@pytest.mark.parametrize("words", [("status", "--json"), ("up", "postgres")])
def test_commands_show_no_password(lab: Lab, words: tuple[str, ...]) -> None:
    done = lab(*words, POSTGRES="postgresql://me:s3cret@127.0.0.1:1/shop")
    assert "me:***@127.0.0.1:1" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
