"""Debezium as the relay: it reads the outbox from Postgres' log, and its EventRouter makes the messages.

The router is told to make the same CloudEvents headers as message.py does, from the same columns. Settings after the
Debezium documentation, "Outbox Event Router" and "Debezium connector for PostgreSQL" (3.6).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx
from psycopg import sql

from outbox.relay import jdbc
from shared.errors import ConfigurationError, DeadlineExceeded, LabError
from shared.postgres import Connection, connect, drop_slot, having
from shared.servers.server import Endpoint
from shared.wait import until

# Column -> header. The key carries `partitionkey`.
HEADERS = {
    "spec_version": "ce_specversion",
    "type": "ce_type",
    "source": "ce_source",
    "aggregate_id": "ce_subject",
    "time": "ce_time",
    "sequence": "ce_aggregateversion",
    "correlation_id": "ce_correlationid",
    "causation_id": "ce_causationid",
    "content_type": "content-type",
    "id": "ce_id",
}
# Headers that not every event has. The router sends them empty, or without a value where the column is null; neither is
# CloudEvents. So it routes by a column that names, behind the topic, those that are missing, and they are dropped.
OPTIONAL = {
    "aggregateversion": "ce_aggregateversion",
    "correlationid": "ce_correlationid",
    "causationid": "ce_causationid",
    "contenttype": "content-type",
}


class NotDeleted(LabError):
    """Connect did not delete a connector. Its slot and publication are dropped."""


@dataclass(frozen=True)
class Connector:
    """One Debezium connector on one outbox table, with the slot and publication that bear its name.

    Raises ConfigurationError where a replication slot cannot have that name.
    """

    connect: Endpoint
    postgres: Endpoint
    name: str  # of connector, replication slot and publication
    schema: str
    table: str = "outbox"
    settings: Mapping[str, str] | None = None  # over the ones below

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]{1,63}", self.name):
            raise ConfigurationError(
                f"{self.name!r} cannot be a connector's name, which its replication slot bears: that has 1 to 63 "
                "lower-case letters, digits and underscores."
            )

    def config(self) -> dict[str, str]:
        """The connector's configuration, as it is put to Connect. Raises ConfigurationError; see `jdbc.settings`."""
        return {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            # The log's columns come as text; Debezium reads bytea as hex, and fails or garbles it where it is not.
            **jdbc.settings(replace(self.postgres, url=having(self.postgres.url, bytea_output="hex"))),
            "topic.prefix": self.name,
            "plugin.name": "pgoutput",
            "slot.name": self.name,
            "publication.name": self.name,
            # Made by `put`: of inserts only, since a publication of updates would refuse to let rows be marked.
            "publication.autocreate.mode": "disabled",
            "publish.via.partition.root": "true",
            "table.include.list": rf"{_pattern(self.schema)}\.{_pattern(self.table)}",
            # Only what is written from now on, and of that only inserts: marks and clean-up are not events.
            "snapshot.mode": "no_data",
            "skipped.operations": "u,d,t",
            # The default of 500 ms is the delay of every event of a quiet outbox.
            "poll.interval.ms": "10",
            "producer.override.acks": "all",
            **_router(),
            **(self.settings or {}),
        }

    def put(self, seconds: float = 60.0) -> None:
        """Create or reconfigure it; returns when its task runs and its slot is read.

        Raises ConfigurationError, see `configure`, and DeadlineExceeded.
        """
        self.configure()
        self.wait_until_running(seconds)

    def configure(self) -> None:
        """Give Connect the configuration; a stopped connector stays stopped.

        Connect tries to reach the database first. Raises ConfigurationError with its words where it cannot.
        """
        self._publish_inserts()
        self._call("PUT", "config", json=self.config())

    def _publish_inserts(self) -> None:
        statement = (
            "create publication {} for table {} with (publish = 'insert', publish_via_partition_root = true, "
            "publish_generated_columns = stored)"
        )
        with connect(self.postgres.url) as connection:
            there = connection.execute("select from pg_publication where pubname = %s", [self.name]).fetchone()
            if there is None:
                table = sql.Identifier(self.schema, self.table)
                connection.execute(sql.SQL(statement).format(sql.Identifier(self.name), table))

    def wait_until_running(self, seconds: float = 60.0) -> None:
        try:
            until(f"connector {self.name} to run and its slot to be read", self._streams, seconds)
        except DeadlineExceeded as error:
            tasks = self.status().get("tasks")
            raise DeadlineExceeded(f"{error}; its task says: {tasks}{self._trial()}") from None

    def status(self) -> dict[str, Any]:
        """Connect's words on the connector and its tasks; empty when it does not know it or does not answer."""
        try:
            response = self._call("GET", "status", check=False)
        except httpx.TransportError:
            return {}
        return dict(response.json()) if response.is_success else {}

    def stop(self) -> None:
        """Stop its task; the slot stays, and with it Postgres' log from there on. Returns when the slot is let go."""
        self._call("PUT", "stop", json={})
        self._await_release()

    def resume(self, seconds: float = 60.0) -> None:
        """Go on after a stop, where it was. Raises DeadlineExceeded."""
        self.start()
        self.wait_until_running(seconds)

    def start(self) -> None:
        """Have it go on after a stop. Whether its task runs or fails is for `status` and `failure` to say."""
        self._call("PUT", "resume", json={})

    def failure(self) -> str:
        """Why its task has failed for good, in the words of the innermost cause; empty when it has not."""
        traces = [task.get("trace", "") for task in self.status().get("tasks", []) if task["state"] == "FAILED"]
        return "; ".join(trace.rpartition("Caused by: ")[2].partition("\n")[0] for trace in traces)

    @contextmanager
    def running(self) -> Iterator["Connector"]:
        """Put it for the time of the block. It is deleted at the end, also where that is an error."""
        try:
            self.put()
            yield self
        except BaseException:
            with suppress(NotDeleted):  # what ended the block is the news; the slot is dropped all the same
                self.delete()
            raise
        self.delete()

    def delete(self) -> None:
        """Delete connector, slot and publication, those that are there.

        The slot is dropped whatever Connect says, since one that nobody reads keeps Postgres' log for ever. Raises
        NotDeleted where Connect has the connector still.
        """
        try:
            until(f"Connect to delete connector {self.name}", self._deleted)
            self._await_release()
        except (httpx.HTTPError, DeadlineExceeded) as error:
            raise NotDeleted(
                f"Connect did not delete connector {self.name} ({error}). Slot and publication are dropped, and "
                "without them its task fails: delete it when Connect answers."
            ) from error
        finally:
            with connect(self.postgres.url) as connection:
                drop_slot(connection, self.name)
                connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(self.name)))

    def _deleted(self) -> bool:
        """Whether Connect does not have it, or no longer. While it rebalances it refuses. Raises httpx.HTTPError."""
        response = self._call("DELETE", "", check=False)
        if response.status_code not in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
            response.raise_for_status()
        return response.status_code != httpx.codes.CONFLICT

    def _await_release(self) -> None:
        with connect(self.postgres.url) as connection:
            until(f"slot {self.name} to be let go", lambda: not self._slot_active(connection))

    def _streams(self) -> bool:
        tasks = self.status().get("tasks", [])
        if not tasks or any(task["state"] != "RUNNING" for task in tasks):
            return False
        # RUNNING is said before the slot is read: an event written now could still wait for seconds.
        with connect(self.postgres.url) as connection:
            return self._slot_active(connection)

    def _trial(self) -> str:
        """What Connect finds wrong when it tries the configuration now.

        A task that ran once tries for ever to reach its database, and is RUNNING meanwhile.
        """
        url = f"{self.connect.url}/connector-plugins/PostgresConnector/config/validate"
        try:
            tried = httpx.put(url, json={"name": self.name, **self.config()}, timeout=30)
        except httpx.TransportError:
            return ""
        options = tried.json()["configs"] if tried.is_success else []
        wrong = [str(error) for option in options for error in option["value"]["errors"]]
        return "; ".join(["", *wrong])

    def _slot_active(self, connection: Connection) -> bool:
        query = "select active from pg_replication_slots where slot_name = %s"
        row = connection.execute(query, [self.name]).fetchone()
        return bool(row and row[0])

    def _call(self, method: str, path: str, json: object = None, check: bool = True) -> httpx.Response:
        url = f"{self.connect.url}/connectors/{self.name}/{path}".rstrip("/")
        response = httpx.request(method, url, json=json, timeout=30)
        if check and response.status_code == httpx.codes.BAD_REQUEST:
            raise ConfigurationError(f"Connect refuses connector {self.name}: {_refusal(response)}")
        return response.raise_for_status() if check else response


def _refusal(response: httpx.Response) -> str:
    """Why Connect does not take a configuration, in its words without those around every list of errors."""
    given = "json" in response.headers.get("content-type", "")  # another answers in its place where it is not
    message = str(response.json()["message"]) if given else response.text
    return " ".join(re.sub(r"^.* error\(s\):|You can also find .*$", "", message, flags=re.DOTALL).split())


def _pattern(name: str) -> str:
    """The name in a list of Java's regular expressions, where `$`, `.` and `,` would say something else."""
    return re.sub(r"(\W)", r"\\\1", name)


def _router() -> dict[str, str]:
    placement = ",".join(f"{column}:header:{header}" for column, header in HEADERS.items())
    route = "transforms.outbox"
    return {
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        # The payload column is bytea and leaves as the bytes that it holds; without bytes it is no tombstone.
        "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "transforms": ",".join(("outbox", *OPTIONAL, "topic")),
        f"{route}.type": "io.debezium.transforms.outbox.EventRouter",
        f"{route}.table.field.event.id": "id",
        f"{route}.table.field.event.key": "aggregate_id",
        f"{route}.table.field.event.type": "type",
        f"{route}.table.field.event.payload": "payload",
        f"{route}.table.fields.additional.placement": placement,
        f"{route}.route.by.field": "route",
        f"{route}.route.topic.replacement": "${routedByValue}",
        **_without_the_missing(),
        "transforms.topic.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.topic.regex": "([^~]*)~.*",
        "transforms.topic.replacement": "$1",
    }


def _without_the_missing() -> dict[str, str]:
    """Drop each optional header where the route names it (Kafka Connect's DropHeaders and TopicNameMatches)."""
    settings = {"predicates": ",".join(OPTIONAL)}
    for name, header in OPTIONAL.items():
        settings |= {
            f"transforms.{name}.type": "org.apache.kafka.connect.transforms.DropHeaders",
            f"transforms.{name}.headers": header,
            f"transforms.{name}.predicate": name,
            f"predicates.{name}.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
            f"predicates.{name}.pattern": f".*~{name}(~.*)?",
        }
    return settings
