"""A read model needs a price that somebody else knows: what does a replay make of old orders, once prices have risen?

One asks while it handles events (`AskedValue.cents`), the other reads what the command has recorded in the event
(`OrderValue.cents`). Both are rebuilt after a rise, and again when there is nobody left to ask.
"""

import time
from dataclasses import dataclass, field

import httpx
from sourcing.projection import Projection, Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.order_value import OrderValue
from sourcing.stage import outside
from sourcing.stage.outside import Market
from sourcing.wrong.effects import AskedValue

from shared.experiment import Experiment, Run

TOPIC = "I.2/challenges/external-system-integration"
experiment = Experiment(
    title="Replay and answers from outside",
    servers=("postgres",),
    topics=(TOPIC,),
)
ASKED, RECORDED = "asked while handling", "recorded in the event"
RISE = 10  # percent


@experiment.run
def main(run: Run) -> None:
    orders = run.parameters["orders"] = run.pick(smoke=30, demo=200, full=1_000)
    with run.step("prices rise between two replays"):
        compare_prices(run, orders)


@dataclass
class Values:
    """What a read model makes of the orders: order -> cents, one after the other; and what ended the last rebuild."""

    model: Projection
    found: list[dict[str, int]] = field(default_factory=list)
    error: str = ""

    def look(self, market: Market) -> None:
        query = f"select order_id, cents from {self.model.name}"  # noqa: S608
        self.found.append(dict(market.connection.execute(query).fetchall()))

    def rebuild(self, market: Market) -> None:
        try:
            rebuild(market.conninfo, self.model)
        except httpx.TransportError as error:
            self.error = type(error).__name__
        self.look(market)

    @property
    def changed(self) -> int:
        """Orders whose value is another one after the rise."""
        return sum(self.found[1][order] != cents for order, cents in self.found[0].items())


def compare_prices(run: Run, orders: int) -> None:
    """Two read models of the same orders; prices rise; both are rebuilt, and rebuilt again with nobody to ask."""
    with outside.market(run) as market:
        events = market.write(run.seed, orders)
        asked, recorded = Values(AskedValue(market.price)), Values(OrderValue())
        install(market.connection, asked.model, recorded.model)
        for values, variant in ((asked, ASKED), (recorded, RECORDED)):
            began = time.perf_counter()
            Projector(market.connection, values.model).catch_up()
            rate = events / (time.perf_counter() - began)
            run.figure("events handled", rate, "events/s", variant=variant, wrong_way=values is asked)
            values.look(market)
        market.raise_prices(RISE)
        for values in (asked, recorded):
            values.rebuild(market)
        market.world.kill()
        for values in (asked, recorded):
            values.rebuild(market)
    claim_prices(run, asked, recorded)


def claim_prices(run: Run, asked: Values, recorded: Values) -> None:
    wrong, right = run.about(ASKED, wrong_way=True, topics=[TOPIC]), run.about(RECORDED, topics=[TOPIC])
    for values, about in ((asked, wrong), (recorded, right)):
        before, after = (sum(found.values()) for found in values.found[:2])
        about.figure("total after the replay", 100 * (after / before - 1), "% off")
    before, after = (sum(found.values()) for found in asked.found[:2])
    wrong.claim(
        "prices asked for while handling: after a rise, a replay gives old orders values that they never had",
        asked.found[0] == recorded.found[0] and asked.changed == len(asked.found[0]),
        fact=f"{asked.changed} of {len(asked.found[0])} orders changed: {euros(before)} became {euros(after)}",
    )
    wrong.claim(
        "prices asked for while handling: with the price service gone there is no replay at all",
        asked.error != "" and recorded.error == "",
        fact=f"the rebuild ended with {asked.error or 'no error'}",
    )
    first, second, last = recorded.found
    right.claim(
        "the answer recorded in the event by the command that asked: every replay gives the same, and asks nobody",
        first == second == last and len(last) > 0,
        fact=f"{recorded.changed} of {len(last)} orders changed in two replays",
    )


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f} EUR"


if __name__ == "__main__":
    experiment.main()
