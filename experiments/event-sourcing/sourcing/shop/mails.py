"""The mail that confirms an order: an effect on the outside world, for the gateway to send."""

from typing import ClassVar

from shared import codec
from sourcing.gateway import Effects
from sourcing.projection import Change
from sourcing.shop.read_models import LIFE


def confirmation(change: Change) -> bytes:
    """The mail that confirms an order."""
    event = change.event
    return codec.encode({"event": event.id, "order": event.stream, "to": change.data["customer"]})


class Confirmations(Effects):
    """A mail is due for every order placed."""

    name: ClassVar[str] = "confirmations"
    category: ClassVar[str] = "order"
    types: ClassVar[frozenset[str]] = LIFE

    def body(self, change: Change) -> bytes | None:
        return confirmation(change) if change.type == "OrderPlaced" else None
