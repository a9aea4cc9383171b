"""What an event is, all say alike: the writer, the relays, the guard in the database, and who reads the message."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outbox.guard import install
from outbox.relay.message import COLUMNS, OutboxRow, headers, problem, problems
from outbox.stage.shop import Shop
from outbox.table import outbox_values

from shared.errors import EventError
from shared.event import Event
from shared.postgres import Connection

TOPIC = "orders"
NAMES = (
    *("aggregate_id", "payload", "type", "source", "sequence", "time"),
    *("correlation_id", "causation_id", "content_type", "spec_version"),
)
INSERT = f"insert into outbox (aggregate_type, {', '.join(NAMES)}) values ('{TOPIC}', {', '.join(['%s'] * len(NAMES))})"  # noqa: S608
WRITTEN = f"select {COLUMNS}, '' from outbox union all select {COLUMNS}, reason from outbox_parked"  # noqa: S608

GOOD: dict[str, Any] = {
    "aggregate_id": "order-1",
    "payload": b"{}",
    "type": "shop.order.placed",
    "source": "/shop/orders",
    "sequence": 1,
    "time": "2026-01-01T12:00:00.000001Z",
    "correlation_id": "basket-1",
    "causation_id": "",
    "content_type": "application/json",
    "spec_version": "1.0",
}

# Postgres' text holds neither U+0000 nor half a surrogate pair.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
ODD = [
    "",
    "\n",
    "a\x7f",
    "\x85",
    "\xad",
    "\ufdd0",
    "\uffff",
    "\U0010ffff",
    "\u200b",
    "\ue000",
    "é",
    "ſ",
    "\N{KELVIN SIGN}",
]
ATTRIBUTE = st.sampled_from(ODD) | WORDS
CONTENT_TYPES = [
    *("", "Application/JSON", "application/json ; charset=utf-8", "text/json", "x/y.z+json", 'model/x+y+json;a="/"'),
    *("application/json\n", "application/json\t", " application/json", "application/jſon", "application/json;\u2028"),
    *("text/plain", "application/octet-stream", "application/jsonish", "json", "a/b/json", "+json", "a/+json"),
    *("application/cloudevents+json", "APPLICATION/CLOUDEVENTS", "application/cloudevent"),
]
TIMES = [
    *("", "now", "2026-01-01", "2026-02-30T00:00:00Z", "2024-02-29t00:00:00z", "0000-01-01T00:00:00Z"),
    *("2026-01-01T24:00:00.000000Z", "2026-01-01T23:59:60Z", "2026-W01-1T00:00:00.000000Z", "2026-01-01T00:00:00"),
    *("2026-01-01T00:00:00+23:59", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00.1234567890Z", "20260101T000000Z"),
    *("2026-01-01 00:00:00.000000Z", "2026-01-01T00:00:00,000000Z", "\N{ARABIC-INDIC DIGIT TWO}026-01-01T00:00:00Z"),
    *("2026-01-01T00:00:00Z\n", "0001-01-01T00:00:00+23:59"),
]

# JSON, and what looks like it.
TOO_MUCH = 2**1024 - 2**970  # halfway from the largest double to the next, which is none
NUMBERS = [
    *(
        f"{TOO_MUCH}",
        f"{TOO_MUCH}.0",
        f"{TOO_MUCH - 1}.9",
        f"-{TOO_MUCH - 1}e0",
        f"0.{TOO_MUCH}e309",
        f"{TOO_MUCH}0e-1",
    ),
    *(
        "1.797693134862315807e308",
        "1.797693134862315808E+308",
        "1e-400",
        "0e99999",
        "0.0e+999",
        "1e99999999999",
        "9e0400",
    ),
    *(
        "9" * 4300,
        "9" * 4301,
        f"-{'9' * 4299}",
        f"-{'9' * 4300}",
        f"{'9' * 400}e-300",
        f"0.{'0' * 400}1e500",
        "9" * 400 + ".5",
    ),
    *("-0", "01", "NaN", "Infinity", "1.", ".5", "+1", "1e"),
]
WRITTEN_NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,3})([.][0-9]{1,3})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
PIECES = [
    r"\ud83d",
    r"\ude00",
    r"\uD83D\uDE00",
    r"\\",
    r"\"",
    r"\u0000",
    r"\x",
    "ud83d",
    "[",
    "}",
    "9e999",
    "\t",
    "\0",
    "é",
]
STRINGS = st.lists(st.sampled_from(PIECES)).map(lambda pieces: f'"{"".join(pieces)}"')
TOKENS = st.sampled_from(NUMBERS) | WRITTEN_NUMBERS | STRINGS | st.sampled_from(["null", "true", "{}", "[]", "nul", ""])
LEVELS = st.lists(st.sampled_from(["[%s]", '{"]":%s}', '{"\\\\":[%s]}', "[{},%s]"]), max_size=3)
DEEP = st.sampled_from([0, 0, 0, 60, 61, 62, 63, 64, 65, 66, 1_000])
EDGES = st.sampled_from(["%s", "%s", " %s\n", "\ufeff%s", "\x0b%s", "%sx", "%s\0", "[%s"])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Some tokens in brackets of many levels, and now and then something that is wrong."""
    text = ",".join(draw(st.lists(TOKENS, min_size=1, max_size=3)))
    for level in ["[%s]", *draw(LEVELS), *["[%s]"] * draw(DEEP), draw(EDGES)]:
        text = level.replace("%s", text)
    return text.encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
PAYLOADS = st.one_of(
    st.just(b""),
    documents(),
    TOKENS.map(str.encode),
    st.binary(max_size=8),
    VALUES.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")),
)
FIELDS = {
    **dict.fromkeys(("aggregate_id", "type", "source", "correlation_id", "causation_id"), ATTRIBUTE),
    "payload": PAYLOADS,
    "sequence": st.sampled_from([0, 10, 2**63 - 1, -1]),
    "time": st.sampled_from(TIMES) | WORDS,
    "content_type": st.sampled_from(CONTENT_TYPES) | WORDS,
    "spec_version": st.sampled_from(["0.3", "", "1.0\n"]),
}
CHANGES = st.lists(st.one_of(*(st.tuples(st.just(name), values) for name, values in FIELDS.items())), max_size=2)


USUAL = OutboxRow(
    *(1, "1", "orders", "order-1", b"{}", "id", "order.placed", "/shop", "1", "2026-01-01T00:00:00.000000Z"),
    *("", "", "application/json", "1.0"),
)


def verdicts(connection: Connection, fields: dict[str, Any]) -> dict[str, str]:
    """Why it is no event, in the words of each that judges it; empty where it is one."""
    with connection.transaction(force_rollback=True):
        connection.execute(INSERT, [fields[name] for name in NAMES])
        [(*values, parked)] = connection.execute(WRITTEN).fetchall()
    row = OutboxRow._make(values)
    in_bytes = [value.encode() if isinstance(value, str) and place > 2 else value for place, value in enumerate(values)]
    message = {name: value.encode() if isinstance(value, str) else value or b"" for name, value in headers(row)}
    return {
        "guard": parked or "",
        "relay": problem(row),
        "log relay": problem(tuple(in_bytes)),
        "page": problems([USUAL, row, USUAL])[1],
        "page of the log relay": problems([tuple(in_bytes)] * 2)[1],
        "consumer": refusal(lambda: Event.from_kafka(fields["aggregate_id"].encode(), fields["payload"], message)),
    }


def refusal(make: Callable[[], object]) -> str:
    try:
        make()
    except EventError as error:
        return str(error)
    return ""


def written(fields: dict[str, Any]) -> Event:
    """The event that the writer would have to take."""
    return Event(
        type=fields["type"],
        source=fields["source"],
        subject=fields["aggregate_id"],
        data=fields["payload"],
        correlation_id=fields["correlation_id"],
        causation_id=fields["causation_id"],
        sequence=fields["sequence"],
        datacontenttype=fields["content_type"] or "application/json",
    )


@pytest.fixture
def guarded(shop: Shop, connection: Connection) -> Connection:
    """On an outbox with the guard, and nothing in it."""
    install(connection, [TOPIC])
    return connection


# A row costs some milliseconds. Each example has the tables as they were.
side_by_side = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@side_by_side
@given(changes=CHANGES)
def test_writer_relays_guard_and_consumer_agree(changes: list[tuple[str, Any]], guarded: Connection) -> None:
    fields = GOOD | dict(changes)
    found = verdicts(guarded, fields)
    assert len({bool(reason) for reason in found.values()}) == 1, found
    if (fields["time"], fields["spec_version"]) == (GOOD["time"], GOOD["spec_version"]):  # the writer makes these
        assert bool(refusal(lambda: outbox_values(written(fields), TOPIC))) == bool(found["relay"]), found


@side_by_side
@given(payload=PAYLOADS)
def test_and_on_every_payload(payload: bytes, guarded: Connection) -> None:
    found = verdicts(guarded, GOOD | {"payload": payload})
    assert len({bool(reason) for reason in found.values()}) == 1, found
    assert bool(refusal(lambda: outbox_values(written(GOOD | {"payload": payload}), TOPIC))) == bool(found["relay"])


NAMED = {
    "half a surrogate pair": (b'{"n":"\\ud83d"}', "half of a surrogate pair"),
    "nested 5,000 deep": (b"[" * 5_000 + b"]" * 5_000, "nested"),
    "more than a double": (b"[1e400]", "out of range"),
}


@pytest.mark.parametrize(("payload", "reason"), NAMED.values(), ids=NAMED)
def test_and_for_the_same_reason(payload: bytes, reason: str, guarded: Connection) -> None:
    found = verdicts(guarded, GOOD | {"payload": payload})
    assert {name: words for name, words in found.items() if reason not in words} == {}
