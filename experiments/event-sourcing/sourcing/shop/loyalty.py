"""Points for deposits: a rule with a bug in it, and its mending. The events know nothing of points."""

from collections.abc import Callable

from sourcing.event import Data
from sourcing.shop.account import Account

Rule = Callable[[int], int]  # cents of a deposit -> points


def rounded(cents: int) -> int:
    """The bug: 6 EUR bring a point, since they round up to 10."""
    return (cents + 500) // 1000


def whole(cents: int) -> int:
    """As it was meant: one point for each whole 10 EUR."""
    return cents // 1000


class LoyalAccount(Account):
    """An account with points, which are worked out from what happened and never stored."""

    state_version = 2

    def __init__(self, ident: str, rule: Rule = whole) -> None:
        super().__init__(ident)
        self.rule = rule
        self.points = 0

    def apply(self, type_: str, data: Data) -> None:
        super().apply(type_, data)
        if type_ == "Deposited":
            self.points += self.rule(data["cents"])

    def state(self) -> Data:
        return {**super().state(), "points": self.points}

    def restore(self, state: Data) -> None:
        super().restore(state)
        self.points = state["points"]
