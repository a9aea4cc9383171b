"""What CloudEvents 1.0.2 allows an attribute to be, where the SDK looks away. One rule, which `shared.event` asks."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent

from shared.errors import EventError

JSON = "application/json"
# Any media type whose subtype is json or ends with +json (CloudEvents 1.0.2, JSON Event Format, 3.1), in any case, with
# any parameters (RFC 9110, 8.3.1). outbox/guard.sql has the same two patterns.
_JSON_TYPE = re.compile(r"[^/;]+/([^/;]+\+)?json *(;.*)?", re.ASCII | re.IGNORECASE | re.DOTALL)
STRUCTURED = "application/cloudevents"
# RFC 3339 without leap seconds, which Python does not have.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# What CloudEvents 1.0.2, "Type System", forbids in a String: control characters, noncharacters, half surrogate pairs.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
_NUMBER = re.compile(r"[0-9]{0,19}")
_VERSIONS = 2**63  # a signed number of 64 bits, as databases have it


def is_json(content_type: str | None) -> bool:
    """Whether a content type means JSON; no content type does (CloudEvents 1.0.2, datacontenttype)."""
    return not content_type or content_type == JSON or _JSON_TYPE.fullmatch(content_type) is not None


def received(attributes: Mapping[str, Any], data: Any) -> CloudEvent:
    """The SDK invents an id and a time where a message has none: every delivery would be another event."""
    there = {name: value for name, value in attributes.items() if value is not None}
    problems = {name: ["is missing"] for name in ("id", "time") if name not in there}
    if "time" in there:
        try:
            there["time"] = _moment(there["time"])
        except ValueError as error:
            problems["time"] = [str(error)]
            del there["time"]
    try:
        event = valid(there, data)
    except EventError as error:
        raise EventError({**error.problems, **problems}) from error
    if problems:
        raise EventError(problems)
    return event


def valid(attributes: dict[str, Any], data: Any) -> CloudEvent:
    """The SDK's event. Raises EventError naming every attribute that is wrong."""
    problems = {name: [odd] for name, value in attributes.items() if (odd := oddity(name, value))}
    try:
        event = CloudEvent(attributes, data)
    except CloudEventValidationError as error:
        found = {name: [str(problem) for problem in listed] for name, listed in error.errors.items()}
        raise EventError({**problems, **found}) from error
    if problems:
        raise EventError(problems)
    return event


def oddity(name: str, value: Any) -> str:
    """What is wrong with an attribute that the SDK lets pass; empty when nothing is."""
    if isinstance(value, datetime):
        return "" if _TIME.fullmatch(plain(value)) or value.tzinfo is None else f"{value} is no time of RFC 3339"
    if isinstance(value, str) and (found := _FORBIDDEN.search(value)):
        return f"holds the character U+{ord(found[0]):04X}, which CloudEvents forbids"
    if name == "datacontenttype" and str(value).lower().startswith(STRUCTURED):
        return f"is {value!r}, which says that the whole event is in the value"
    if name == "aggregateversion" and not (_NUMBER.fullmatch(str(value)) and int(value or 0) < _VERSIONS):
        return f"is {value!r}, and not a number from 0 to {_VERSIONS - 1}"
    return ""


def _moment(value: Any) -> datetime:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError(f"{value!r} is no time of RFC 3339")
    return datetime.fromisoformat(value.upper())


def plain(value: Any) -> Any:
    """An attribute as JSON and headers have it."""
    text = value.isoformat() if isinstance(value, datetime) else value
    return f"{text[:-6]}Z" if isinstance(value, datetime) and text.endswith("+00:00") else text
