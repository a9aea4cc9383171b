"""A read model needs a price that somebody else knows: what does a replay make of old orders, once prices have risen?

One asks while it handles events (`AskedValue.cents`), the other reads what the command has recorded in the event
(`OrderValue.cents`). Both are rebuilt after a rise, and again when there is nobody left to ask.
"""

import time
from functools import partial

import httpx
from sourcing.postgres import create
from sourcing.projection import Projection, Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.order_value import OrderValue
from sourcing.stage import filling as shop
from sourcing.stage.receiver import ask_price, raise_prices, receiver
from sourcing.wrong.effects import AskedValue

from shared.experiment import Experiment, Run
from shared.postgres import Connection, connect

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


def compare_prices(run: Run, orders: int) -> None:
    """Two read models of the same orders; prices rise; both are rebuilt, and rebuilt again with nobody to ask."""
    conninfo = run.schema("_prices")
    create(conninfo)
    with connect(conninfo) as connection, receiver(run, "prices") as (url, world), httpx.Client() as client:
        price = partial(ask_price, client, url)
        events = shop.write(connection, run.seed, orders, price=price)
        models: dict[str, Projection] = {ASKED: AskedValue(price), RECORDED: OrderValue()}
        install(connection, *models.values())
        for variant, model in models.items():
            began = time.perf_counter()
            Projector(connection, model).catch_up()
            rate = events / (time.perf_counter() - began)
            run.figure("events handled", rate, "events/s", variant=variant, wrong_way=variant == ASKED)
        before = {variant: values(connection, model) for variant, model in models.items()}
        raise_prices(client, url, RISE)
        for model in models.values():
            rebuild(conninfo, model)
        after = {variant: values(connection, model) for variant, model in models.items()}
        world.kill()
        alone = {variant: can_rebuild(conninfo, model) for variant, model in models.items()}
        last = values(connection, models[RECORDED])
    claim_prices(run, before, after, alone, last)


def values(connection: Connection, model: Projection) -> dict[str, int]:
    """Order -> cents."""
    return dict(connection.execute(f"select order_id, cents from {model.name}").fetchall())  # noqa: S608


def can_rebuild(conninfo: str, model: Projection) -> str:
    """Empty, or the error that ended the rebuild."""
    try:
        rebuild(conninfo, model)
    except httpx.TransportError as error:
        return type(error).__name__
    return ""


def claim_prices(
    run: Run,
    before: dict[str, dict[str, int]],
    after: dict[str, dict[str, int]],
    alone: dict[str, str],
    last: dict[str, int],
) -> None:
    changed = {v: sum(after[v][order] != cents for order, cents in before[v].items()) for v in before}
    totals = {variant: sum(found.values()) for variant, found in after.items()}
    for variant in before:
        rise = 100 * (totals[variant] / sum(before[variant].values()) - 1)
        run.figure("total after the replay", rise, "% off", variant=variant, wrong_way=variant == ASKED)
    run.about(ASKED, wrong_way=True, topics=[TOPIC]).claim(
        "prices asked for while handling: after a rise, a replay gives old orders values that they never had",
        before[ASKED] == before[RECORDED] and changed[ASKED] == len(before[ASKED]),
        fact=f"{changed[ASKED]} of {len(before[ASKED])} orders changed: {euros(sum(before[ASKED].values()))}"
        f" became {euros(totals[ASKED])}",
    )
    run.about(ASKED, wrong_way=True, topics=[TOPIC]).claim(
        "prices asked for while handling: with the price service gone there is no replay at all",
        alone[ASKED] != "" and alone[RECORDED] == "",
        fact=f"the rebuild ended with {alone[ASKED] or 'no error'}",
    )
    run.about(RECORDED, topics=[TOPIC]).claim(
        "the answer recorded in the event by the command that asked: every replay gives the same, and asks nobody",
        before[RECORDED] == after[RECORDED] == last and len(last) > 0,
        fact=f"{changed[RECORDED]} of {len(last)} orders changed in two replays",
    )


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f} EUR"


if __name__ == "__main__":
    experiment.main()
