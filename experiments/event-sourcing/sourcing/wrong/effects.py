"""WRONG on purpose: effects and questions to the outside world in the midst of handling events."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from shared.postgres import Connection
from sourcing.gateway import Effect, Gateway
from sourcing.projection import Change, Projection
from sourcing.shop.mails import confirmation
from sourcing.shop.order_value import OrderValue
from sourcing.shop.read_models import LIFE
from sourcing.windows import EffectWindow


class SendWhileHandling(Projection):
    """WRONG: the mail is sent by whoever handles the event, however often that is."""

    name: ClassVar[str] = "mailing"
    tables: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[str] = ""
    category: ClassVar[str] = "order"
    types: ClassVar[frozenset[str]] = LIFE

    def __init__(self, post: Callable[[bytes], object]) -> None:
        self.post = post

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.type == "OrderPlaced":
                self.post(confirmation(change))


class SilentReplay(SendWhileHandling):
    """WRONG: the usual mend, a flag that is set during a replay. A restart after a crash is no replay."""

    def __init__(self, post: Callable[[bytes], object], replaying: bool) -> None:
        super().__init__(post)
        self.replaying = replaying

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        if not self.replaying:
            super().handle(connection, changes)


class NoteFirst(Gateway):
    """WRONG: noted as sent, then sent. At most once: killed in between, the mail is never sent."""

    def _do(self, effect: Effect) -> None:
        self.at(EffectWindow.BEFORE)
        self._note(effect)
        self.at(EffectWindow.BETWEEN)
        self.send(effect.body, effect.event_id)
        self.at(EffectWindow.AFTER)


class AskedValue(OrderValue):
    """WRONG: it asks for the price when the event is handled, which says nothing of the price at the time."""

    name: ClassVar[str] = "order_value_asked"
    tables: ClassVar[tuple[str, ...]] = ("order_value_asked",)
    schema: ClassVar[str] = "create table order_value_asked (order_id text primary key, cents bigint not null)"

    def __init__(self, price: Callable[[str], int]) -> None:
        self.price = price

    def cents(self, change: Change) -> int:
        return self.price(change.data["product"])
