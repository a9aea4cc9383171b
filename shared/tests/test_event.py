"""An event comes back as it went, by CloudEvents and by Kafka; what the SDK gets wrong is guarded, a test for each."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.bindings import kafka as binding
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from shared import kafka
from shared.errors import EventError
from shared.event import JSON, STRICT, Event, new_id
from shared.servers.server import Endpoint

TEXT = st.text(min_size=1, max_size=20)
# What an attribute may hold: no control characters, no noncharacters (CloudEvents 1.0.2, "Type System").
WORD = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]).filter(
        lambda one: (ord(one) & 0xFFFE) != 0xFFFE and not "\ufdd0" <= one <= "\ufdef"
    ),
    min_size=1,
    max_size=20,
)
JSON_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
# data and what it says it is
BODIES = st.one_of(
    st.tuples(JSON_DATA, st.sampled_from([JSON, "application/vnd.shop+json; charset=utf-8"])),
    st.tuples(TEXT, st.just("text/plain")),
    st.tuples(st.binary(min_size=1, max_size=20), st.sampled_from(["application/avro", "application/octet-stream"])),
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    data, content_type = draw(BODIES)
    optional = {
        name: draw(st.just("") | WORD) for name in ("subject", "correlation_id", "causation_id", "partition_key")
    }
    return Event(
        type=draw(WORD),
        source=draw(WORD),
        time=draw(st.datetimes(timezones=st.just(UTC))),
        data=data,
        datacontenttype=content_type,
        dataschema=draw(st.sampled_from(["", "https://shop.example/orders.json"])),
        sequence=draw(st.integers(0, 2**63 - 1)),
        **optional,
    )


@pytest.fixture
def event() -> Event:
    return Event(
        type="shop.order.placed",
        source="/shop/orders",
        subject="order-1",
        data={"cents": 4200},
        correlation_id="basket-7",
        causation_id="command-3",
        partition_key="order-1",
        sequence=1,
    )


def structured(event: Event) -> binding.KafkaMessage:
    return binding.to_structured(event.to_cloudevent(), STRICT)


def read(message: binding.KafkaMessage, **more: bytes) -> Event:
    """The message as a consumer gets it, with further headers."""
    key = message.key.encode() if isinstance(message.key, str) else message.key
    return Event.from_kafka(key, message.value, {**message.headers, **more})


def problems(read: Callable[..., object], *arguments: Any) -> Mapping[str, Any]:
    """What is wrong, by attribute."""
    with pytest.raises(EventError) as caught:
        read(*arguments)
    return caught.value.problems


def test_ids_are_uuid7_unique_and_in_the_order_of_their_making() -> None:
    ids = [new_id() for _ in range(5_000)]
    assert {UUID(made).version for made in ids} == {7}
    assert sorted(set(ids)) == ids


def test_an_event_cannot_be_changed(event: Event) -> None:
    with pytest.raises(FrozenInstanceError):
        event.type = "other"  # type: ignore[misc]


@given(events())
def test_every_event_comes_back_from_cloudevents(event: Event) -> None:
    assert Event.from_cloudevent(event.to_cloudevent()) == event


@given(events())
def test_every_event_comes_back_from_kafka_in_binary_mode(event: Event) -> None:
    assert read(event.to_kafka()) == event


@given(events())
def test_every_event_comes_back_from_kafka_in_structured_mode(event: Event) -> None:
    assert read(structured(event)) == event


def test_binary_mode_has_the_attributes_as_headers_and_the_data_alone_as_value(event: Event) -> None:
    message = event.to_kafka()
    assert (message.key, message.value) == ("order-1", b'{"cents":4200}')
    assert message.headers["ce_type"] == b"shop.order.placed"
    assert (message.headers["content-type"], message.headers["ce_aggregateversion"]) == (b"application/json", b"1")


def test_an_event_goes_through_a_real_kafka(kafka: Endpoint, topic: Callable[..., str], event: Event) -> None:
    name, others = topic(), [replace(event, id=new_id(), data=[1, {"a": True}]), replace(event, id=new_id(), data=None)]
    assert through_kafka(kafka, name, [event, *others]) == [event, *others]


def through_kafka(endpoint: Endpoint, topic: str, sent: list[Event]) -> list[Event]:
    """All of one key, so in one partition; the last one in structured mode."""
    producer = kafka.producer(endpoint)
    for message in (*(event.to_kafka() for event in sent[:-1]), structured(sent[-1])):
        producer.produce(topic, message.value, message.key, headers=dict(message.headers))
    producer.flush()
    return [Event.from_kafka(kafka.key(m), kafka.value(m), kafka.headers(m)) for m in kafka.read_all(endpoint, topic)]


# One test for each trap of the SDK.


def test_trap_the_callers_dict_is_kept_two_events_share_nothing(event: Event) -> None:
    first, second = event.to_cloudevent(), replace(event, id="other").to_cloudevent()
    assert first.get_attributes() is not second.get_attributes()
    assert (first.get_id(), second.get_id()) == (event.id, "other")


def test_trap_attributes_are_live_changing_them_does_not_reach_the_event(event: Event) -> None:
    theirs = event.to_cloudevent()
    ours = Event.from_cloudevent(theirs)
    theirs.get_attributes()["id"] = "changed"
    assert ours == event


@pytest.mark.parametrize("data", [[1, {"a": "b"}], True, False, "text", "", 0, 1.5, {"a": None}], ids=repr)
def test_trap_json_that_is_no_dict_is_json_on_the_wire(data: object, event: Event) -> None:
    message = replace(event, data=data).to_kafka()
    assert json.loads(message.value) == data
    assert read(message).data == data


def test_trap_bytes_that_happen_to_be_utf8_stay_bytes(event: Event) -> None:
    avro = replace(event, data=b"abc", datacontenttype="application/avro")
    assert read(avro.to_kafka()).data == b"abc"
    assert read(structured(avro)).data == b"abc"


def test_trap_a_stray_header_does_not_make_a_structured_event_binary(event: Event) -> None:
    assert read(structured(event), ce_id=b"stray", ce_specversion=b"1.0") == event


def test_the_content_type_is_read_in_any_case(event: Event) -> None:
    message = structured(event)
    assert Event.from_kafka(b"order-1", message.value, {"content-type": b"Application/CloudEvents+JSON"}) == event


def test_trap_a_tombstone_is_an_event_error(event: Event) -> None:
    assert "tombstone" in problems(Event.from_kafka, b"order-1", None, event.to_kafka().headers)["data"][0]


def test_trap_a_key_that_is_no_text_is_an_event_error(event: Event) -> None:
    message = event.to_kafka()
    assert problems(Event.from_kafka, b"\xff\xfe", message.value, message.headers).keys() == {"data"}


def test_trap_a_batch_is_an_event_error(event: Event) -> None:
    body = b"[" + structured(event).value + b"]"
    headers = {"content-type": b"application/cloudevents-batch+json"}
    assert "cloudevents-batch" in problems(Event.from_kafka, None, body, headers)["data"][0]


@pytest.mark.parametrize("body", [b"{}", b"null", b"not json", b"\xff", b'{"specversion": "1.0", "id": 1}'])
def test_trap_a_structured_body_that_is_no_event_is_an_event_error(body: bytes) -> None:
    assert problems(Event.from_kafka, None, body, {"content-type": b"application/cloudevents+json"})


def test_trap_a_message_that_is_no_cloudevent_is_an_event_error() -> None:
    assert problems(Event.from_kafka, b"k", b'{"n": 1}', {"content-type": b"application/json"}).keys() == {
        "specversion"
    }


def test_trap_data_that_is_not_what_its_content_type_says_is_an_event_error(event: Event) -> None:
    assert problems(Event.from_kafka, None, b"{half", event.to_kafka().headers).keys() == {"data"}


def test_trap_a_time_without_a_zone_is_refused(event: Event) -> None:
    naive = replace(event, time=datetime(2026, 1, 1))
    assert problems(naive.to_cloudevent).keys() == {"time"}


def test_trap_a_missing_time_is_not_invented(event: Event) -> None:
    headers = {name: value for name, value in event.to_kafka().headers.items() if name != "ce_time"}
    assert problems(Event.from_kafka, None, b"{}", headers).keys() == {"time"}


@pytest.mark.parametrize(
    "number", [b"first", b"-1", b"1.5", "²".encode(), "٣".encode(), b"1\n", b"9" * 5_000, str(2**63).encode()]
)
def test_a_version_that_is_no_whole_number_is_refused(number: bytes, event: Event) -> None:
    headers = {**event.to_kafka().headers, "ce_aggregateversion": number}
    assert problems(Event.from_kafka, None, b"{}", headers).keys() == {"aggregateversion"}


def test_an_extension_as_a_json_number_is_read(event: Event) -> None:
    body = json.loads(structured(event).value) | {"aggregateversion": 7, "correlationid": 12, "causationid": True}
    found = Event.from_kafka(None, json.dumps(body).encode(), {"content-type": b"application/cloudevents+json"})
    assert (found.sequence, found.correlation_id, found.causation_id) == (7, "12", "true")


def test_all_problems_are_listed_at_once(event: Event) -> None:
    wrong = replace(event, id="", source="", type="", time=datetime(2026, 1, 1))
    assert problems(wrong.to_cloudevent).keys() == {"id", "source", "type", "time"}


def test_trap_a_missing_id_is_not_invented_and_all_problems_are_listed(event: Event) -> None:
    headers = {name: value for name, value in event.to_kafka().headers.items() if name not in ("ce_id", "ce_type")}
    assert problems(Event.from_kafka, None, b"{}", headers).keys() == {"id", "type"}


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object()], ids=["nan", "set", "object"])
def test_data_that_is_not_json_is_refused_before_it_is_sent(data: object, event: Event) -> None:
    assert problems(replace(event, data=data).to_kafka).keys() == {"data"}


def test_a_foreign_event_without_extensions_is_read() -> None:
    theirs = CloudEvent(
        {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "time": datetime.now(UTC)}, {"n": 1}
    )
    ours = Event.from_cloudevent(theirs)
    assert (ours.data, ours.sequence, ours.partition_key, ours.datacontenttype) == ({"n": 1}, 0, "", JSON)


# Whatever comes from others is an event or an EventError, and what is taken can be written again.

DEEP = b"[" * 100_000 + b"]" * 100_000
NO_JSON = {
    "deep": DEEP,
    "a little too deep": b"[" * 65 + b"]" * 65,
    "brackets without an end": b"[" * 100_000,
    "NaN": b'{"cents": NaN}',
    "infinity": b'{"cents": -Infinity}',
    "more than a double": b'{"cents": 1e400}',
    "more digits than are read": b'{"cents": ' + b"9" * 5_000 + b"}",
    "half a surrogate pair": b'{"n": "\\ud83d"}',
    "a Latin-1 byte": b'{"n": "\xfc"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "only a blank": b" ",
}


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
def test_data_that_is_no_json_is_an_event_error_in_both_modes(data: bytes, event: Event) -> None:
    message = event.to_kafka()
    assert "the payload is not" in problems(Event.from_kafka, b"k", data, message.headers)["data"][0]
    assert problems(replace(event, data=data).to_kafka).keys() == {"data"}
    envelope = structured(event).value.replace(b'{"cents":4200}', data or b"?")
    if data != b" ":
        assert problems(Event.from_kafka, b"k", envelope, {"content-type": b"application/cloudevents+json"})


def test_json_as_bytes_is_read_as_json(event: Event) -> None:
    encoded = replace(event, data=b'{"cents":4200}')
    assert (read(encoded.to_kafka()), read(structured(encoded))) == (event, event)


def test_an_event_without_data_is_one_in_both_modes(event: Event) -> None:
    bare = replace(event, data=None)
    assert bare.to_kafka().value == b""
    assert (read(bare.to_kafka()), read(structured(bare))) == (bare, bare)


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/JSON",
        "application/json ; charset=utf-8",
        "text/json",
        "application/vnd.a_b+JSON",
        "model/gltf+json",
    ],
)
def test_json_goes_by_any_name_that_means_it(content_type: str, event: Event) -> None:
    named = replace(event, data=["a"], datacontenttype=content_type)
    assert named.to_kafka().value == b'["a"]'
    assert (read(named.to_kafka()), read(structured(named))) == (named, named)
    assert problems(Event.from_kafka, None, b"[", named.to_kafka().headers).keys() == {"data"}


@pytest.mark.parametrize("content_type", ["application/jsonish", "json", "application/x; a=/json", "x/y+jſon"])
def test_and_by_no_other(content_type: str, event: Event) -> None:
    assert read(replace(event, data=b"[", datacontenttype=content_type).to_kafka()).data == b"["


def test_text_in_another_charset_stays_bytes(event: Event) -> None:
    latin = replace(event, data=b"gesch\xfctzt", datacontenttype="text/plain; charset=iso-8859-1")
    assert read(latin.to_kafka()) == latin


@pytest.mark.parametrize("character", ["\n", "\0", "\x7f", "\x85", "\ufdd0", "\uffff", "\U0010fffe"], ids=ascii)
@pytest.mark.parametrize("header", ["ce_id", "ce_type", "ce_subject", "content-type", "ce_correlationid", "ce_other"])
def test_an_attribute_with_a_character_that_cloudevents_forbids_is_refused(
    header: str, character: str, event: Event
) -> None:
    headers = {**event.to_kafka().headers, header: f"application/json{character}".encode()}
    name = "datacontenttype" if header == "content-type" else header.removeprefix("ce_")
    assert problems(Event.from_kafka, None, b"{}", headers).keys() == {name}


@pytest.mark.parametrize("name", ["id", "type", "subject", "source", "datacontenttype", "dataschema"])
def test_and_is_not_written_either(name: str, event: Event) -> None:
    for character in ("\n", "\ud83d"):
        wrong: dict[str, Any] = {name: f"x{character}"}
        assert problems(replace(event, **wrong).to_kafka).keys() == {name}


def test_a_content_type_that_would_make_it_a_structured_event_is_refused(event: Event) -> None:
    envelope = replace(event, datacontenttype="Application/CloudEvents+json")
    assert problems(envelope.to_kafka).keys() == {"datacontenttype"}


def test_the_headers_of_others_may_hold_anything(event: Event) -> None:
    others = {"trace": b"\xff\x00", "X-Count": b"\x80", "ce": b"\xfe"}
    assert read(event.to_kafka(), **others) == event


def test_headers_are_found_in_any_case_of_their_names(event: Event) -> None:
    message = event.to_kafka()
    headers = {name.title(): value for name, value in message.headers.items()}
    assert Event.from_kafka(b"order-1", message.value, headers) == event


@pytest.mark.parametrize("header", ["ce_correlationid", "ce_causationid", "ce_partitionkey", "ce_aggregateversion"])
@pytest.mark.parametrize("value", [b"", None])
def test_an_extension_without_a_value_is_not_there_and_is_not_written(header: str, value: bytes, event: Event) -> None:
    bare = replace(event, correlation_id="", causation_id="", partition_key="", sequence=0)
    found = Event.from_kafka(None, b"{}", {**bare.to_kafka().headers, header: value})
    assert (replace(found, data=bare.data), found.to_kafka().headers) == (bare, bare.to_kafka().headers)


@pytest.mark.parametrize(
    "time",
    ["2026-01-01", "2026-01-01T00:00:00", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "20260101T000000Z", "now"],
)
def test_a_time_that_is_none_of_rfc_3339_is_refused(time: str, event: Event) -> None:
    headers = {**event.to_kafka().headers, "ce_time": time.encode()}
    assert problems(Event.from_kafka, None, b"{}", headers).keys() == {"time"}


@given(events())
def test_every_header_is_to_the_letter_of_cloudevents(event: Event) -> None:
    """Names of lower-case letters and digits, of 20 characters at most, and never without a value (1.0.2, 3.1)."""
    headers = event.to_kafka().headers
    names = [name.removeprefix("ce_") for name in headers if name != "content-type"]
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in names)
    assert all(headers.values())
    assert "sequence" not in names


NAMES = st.sampled_from(
    ["content-type", "ce_data", "ce_datacontenttype"]
    + [f"ce_{name}" for name in ("id", "source", "type", "specversion", "time", "subject", "aggregateversion", "other")]
)
VALUES = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(
        [b"1.0", b"application/json", b"application/cloudevents+json", b"text/plain", b"2026-01-01T00:00:00Z", b"7"]
    ),
)
GOOD = {
    "ce_specversion": b"1.0",
    "ce_id": b"1",
    "ce_source": b"/s",
    "ce_type": b"t",
    "ce_time": b"2026-01-01T00:00:00Z",
}
ENVELOPE = st.dictionaries(
    st.sampled_from(
        ["id", "source", "type", "time", "specversion", "subject", "datacontenttype", "data", "data_base64"]
    )
    | st.text(max_size=5),
    JSON_DATA,
)
BODY = st.one_of(
    st.binary(max_size=40),
    ENVELOPE.map(lambda more: json.dumps({name[3:]: value.decode() for name, value in GOOD.items()} | more).encode()),
    st.sampled_from(list(NO_JSON.values())),
)


@given(st.none() | VALUES, st.none() | BODY, st.dictionaries(NAMES, VALUES).map(lambda more: GOOD | more))
def test_any_message_is_an_event_or_an_event_error_and_what_is_taken_can_be_written_again(
    key: bytes | None, value: bytes | None, headers: dict[str, bytes]
) -> None:
    try:
        event = Event.from_kafka(key, value, headers)
    except EventError:
        return
    again = read(event.to_kafka())
    assert replace(again, data=event.data) == event
