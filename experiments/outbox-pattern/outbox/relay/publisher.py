"""Rows to the broker: what every Python relay shares. Refused rows are told apart from a broker that is away.

A broker that is away is waited for, and then given up for this time: all that was not acknowledged is forgotten, and
the relay sends it again, from its last note, by a new producer. A producer may not decide that message by message, as
`message.timeout.ms` does: what times out would be passed by what does not. Forgotten at one moment, what the broker has
is what was sent first, in order, for each partition; what comes again comes in order, too. (librdkafka, "Idempotent
Producer", "Ordering guarantees".) Some comes twice, as after a kill.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outbox.relay.message import OutboxRow, Row, headers, problems, text
from shared import kafka
from shared.servers.server import Endpoint

# The broker's word on the message itself: sending it again would not help.
PERMANENT = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
# No time-out of single messages, see above. 5 ms make large batches in a drain; flush() does not wait for them. Reports
# of failures only: a Python call for each message would cost as much as the message itself.
SETTINGS = {
    "linger_ms": 5,
    "message_timeout_ms": 0,
    "delivery_report_only_error": True,
    "queue_buffering_max_kbytes": 262_144,
}
METADATA_AGE = 1.0  # seconds before a topic that did not exist is looked for again
PATIENCE = 30.0  # seconds without any acknowledgement after which a broker counts as away
ANSWER = 5.0  # seconds before the list of topics is asked for again
SLICE = 1.0  # seconds between two looks at what is not acknowledged yet
AGAIN = 0.5  # seconds before a broker that was away is tried again
log = logging.getLogger(__name__)


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for cycles rarely while rows pass through.

    Every page is hundreds of new tuples and no cycle. Looking at them cost an eighth of the relay's CPU, and looking
    at all that the process has, now and then, stopped it for 40 to 100 ms.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def attempt(step: Callable[[], int], stop: threading.Event) -> int:
    """A relay's step, for its `run`: none, after a moment, where the broker is away. The next one does it again."""
    try:
        return step()
    except KafkaException as error:
        log.warning("the broker did not take all, which is sent again: %s", error)
        stop.wait(AGAIN)
        return 0


class Publisher:
    """Sends rows and waits for acknowledgements. `refused` gathers (position, reason) of rows that cannot be sent.

    After a KafkaException it is as new, and knows of no row: all since the last flush must be sent again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        prefix: str = "",
        on_acknowledged: Callable[[Sequence[OutboxRow]], object] | None = None,
        patience: float = PATIENCE,
        **settings: object,  # of the producer, over SETTINGS
    ) -> None:
        self.prefix = prefix
        self.on_acknowledged = on_acknowledged  # is called with what the broker has, page by page
        self.patience = patience
        self.meanwhile: Callable[[], object] = _nothing  # is called once a second while the broker is waited for
        self._endpoint, self._settings = endpoint, {**SETTINGS, **settings}
        self._begin()

    def _begin(self) -> None:
        self.refused: list[tuple[int, str]] = []
        self.waiting = 0  # rows handed over since the last flush
        self._sent: list[Sequence[Row]] = []
        self._failure: KafkaError | None = None
        self._producer: Producer = kafka.producer(self._endpoint, on_delivery=self._delivered, **self._settings)
        self._topics: set[str] = set()
        self._asked = -METADATA_AGE

    @contextmanager
    def _anew_after_failure(self) -> Iterator[None]:
        try:
            yield
        except KafkaException:
            self.close()
            self._begin()
            raise

    def close(self) -> None:
        """Forget what is not acknowledged, and leave the broker."""
        self._producer.purge()
        self._producer.close()

    def send(self, rows: Sequence[Row]) -> None:
        """Hand rows to the producer, in order. Nothing is acknowledged before `flush`. Raises KafkaException."""
        with self._anew_after_failure():
            self._send(rows)

    def _send(self, rows: Sequence[Row]) -> None:
        produce, topics, prefix = self._producer.produce, self._topics, self.prefix
        self._sent.append(rows)
        self.waiting += len(rows)
        for row, reason in zip(rows, problems(rows), strict=True):
            topic = prefix + row[2]
            if reason or (topic not in topics and not self._exists(topic)):
                self.refused.append((row[0], reason or f"there is no topic {topic!r}"))
            else:
                try:
                    produce(topic, row[4], row[3], headers=headers(row))
                except BufferError:  # the queue is full: let the broker catch up
                    self._await_acknowledgements()
                    produce(topic, row[4], row[3], headers=headers(row))
                except KafkaException as error:
                    self._fail(error.args[0], row[0])
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has everything that was sent. Raises KafkaException when it did not take some of it.

        Rows that it will never take are in `refused` then, and are no error.
        """
        with self._anew_after_failure():
            self._await_acknowledgements()
            if self._failure is not None:
                raise KafkaException(self._failure)
        self._tell()
        self._sent.clear()
        self.waiting = 0

    def _await_acknowledgements(self) -> None:
        """Raises KafkaException when none came for as long as the patience lasts."""
        left, since = len(self._producer), time.monotonic()
        while now_left := self._producer.flush(min(SLICE, self.patience)):
            self.meanwhile()
            if now_left < left:
                left, since = now_left, time.monotonic()
            elif time.monotonic() - since > self.patience:
                reason = f"{left} messages, and none was acknowledged in {self.patience:g} s"
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, reason))

    def take_refused(self) -> list[tuple[int, str]]:
        """The refused rows, once: the caller parks them."""
        refused, self.refused = self.refused, []
        return refused

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error, self._position(kafka.headers(message).get("ce_id", b"").decode()))

    def _fail(self, error: KafkaError, position: int) -> None:
        if error.code() in PERMANENT and position:
            self.refused.append((position, f"the broker refuses it: {error.str()}"))
        else:
            self._failure = error

    def _position(self, ident: str) -> int:
        return next((row[0] for rows in self._sent for row in rows if text(row[5]) == ident), 0)

    def _exists(self, topic: str) -> bool:
        """Whether the topic exists. Unknown ones are asked for once a second, so that a new topic is found soon."""
        if time.monotonic() - self._asked > METADATA_AGE:
            self._topics.update(self._ask_for_topics())
            self._asked = time.monotonic()
        return topic in self._topics

    def _ask_for_topics(self) -> set[str]:
        end = time.monotonic() + self.patience
        while True:
            try:
                return set(self._producer.list_topics(timeout=min(self.patience, ANSWER)).topics)
            except KafkaException:
                if time.monotonic() > end:
                    raise
                self.meanwhile()

    def _tell(self) -> None:
        if self.on_acknowledged:
            refused = {position for position, _ in self.refused}
            for rows in self._sent:
                self.on_acknowledged([row for row in map(OutboxRow._make, rows) if row.position not in refused])


def _nothing() -> None:
    """What is done meanwhile, where nothing is."""
