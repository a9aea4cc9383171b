"""Activities that stop in a window until they are let go: time for an experiment to kill the server under them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from saga.engines.temporal.activities import Activities
from saga.order import Action, Request
from saga.services.shop import Shop
from saga.windows import Hook, nowhere
from shared.wait import until


@dataclass(frozen=True)
class Gate:
    """For each of these orders, one action that is held in this window. Files say who stands there, and who may go."""

    folder: Path
    window: str
    holds: dict[str, Action]  # by the order's id
    patience: float = 60.0  # seconds after which whoever is held gives up

    def held(self) -> set[str]:
        """The orders whose action stands at the gate, or has passed it."""
        return {path.name for path in self.folder.glob("*")} & self.holds.keys()

    def open(self) -> None:
        """Let go whoever is held or comes later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "open").touch()

    def hook(self, request: Request) -> Hook:
        return partial(self._hold, request.order.id) if self.holds.get(request.order.id) is request.action else nowhere

    def _hold(self, order: str, window: str) -> None:
        if window == self.window:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / order).touch()
            until(f"the gate of {order}, {window}", (self.folder / "open").exists, self.patience)


class HeldActivities(Activities):
    """Activities with gates in them."""

    def __init__(self, shop: Shop, at: Hook, gates: tuple[Gate, ...]) -> None:
        super().__init__(shop, at)
        self.gates = gates

    def hook(self, request: Request) -> Hook:
        """Through all gates: an order is held by one of them at most."""
        hooks = [gate.hook(request) for gate in self.gates]

        def at(window: str) -> None:
            for hook in (self.at, *hooks):
                hook(window)

        return at
