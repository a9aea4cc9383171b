"""The simplest saga that is right: a loop over the steps, and a log with one row for each saga.

A service gives the same answer to the same request again. So the log need not say how far a saga was: whoever takes
it up asks from its start, and hears what was heard before. There are no time-outs here and no operator, and a step
that never answers keeps its saga for ever; for those see saga.orchestrator.
"""

import time

import msgspec

from saga.fates import TransientError
from saga.nosaga import AFTER, CallWindow
from saga.order import STEPS, UNDO, Action, Order, Reply, Request
from saga.services.shop import Services, Shop
from shared import postgres
from shared.faults import Hook, nowhere
from shared.postgres import Connection

LOG = 'create table sagas (id text primary key, "order" bytea not null, ended_at timestamptz)'
BEGIN = "insert into sagas values (%s, %s) on conflict do nothing"
END = "update sagas set ended_at = clock_timestamp() where id = %s"
OPEN = 'select "order" from sagas where ended_at is null order by id'
AGAIN = 0.01  # seconds before a service that was busy is asked again
SPAN = """
select split_part(request_id, ':', 1), extract(epoch from min(answered_at))::float8,
       extract(epoch from max(answered_at))::float8
from inbox group by 1
"""


def carry_out(log: Connection, services: Services, order: Order, at: Hook = nowhere) -> bool:
    """The saga of an order, begun or taken up again; whether the order is complete."""
    log.execute(BEGIN, [order.id, msgspec.json.encode(order)])
    at(CallWindow.BEFORE)
    refused = False
    for number, action in enumerate(STEPS):
        refused = bool(ask(services, order, action).refused)
        at(AFTER[action])
        if refused:
            for step in reversed(STEPS[:number]):
                ask(services, order, UNDO[step])
            break
    log.execute(END, [order.id])
    return not refused


def ask(services: Services, order: Order, action: Action) -> Reply:
    """The service's answer, however often one has to ask."""
    while True:
        try:
            return services(Request(order.id, action, order))
        except TransientError:
            time.sleep(AGAIN)


def known(log: Connection, order: Order) -> bool:
    """Whether the saga of an order has begun."""
    return log.execute("select 1 from sagas where id = %s", [order.id]).fetchone() is not None


def unfinished(log: Connection) -> list[Order]:
    """The orders whose sagas have begun and not ended."""
    return [msgspec.json.decode(row[0], type=Order) for row in log.execute(OPEN)]


def resume(log: Connection, services: Services) -> int:
    """Take up what a dead process left; returns how many sagas that were."""
    orders = unfinished(log)
    for order in orders:
        carry_out(log, services, order)
    return len(orders)


def spans(shop: Shop) -> dict[str, tuple[float, float]]:
    """Order -> when the first service answered, and the last, in seconds of Unix time. Between, it is half done."""
    first, last = dict[str, float](), dict[str, float]()
    for conninfo in shop.conninfos.values():
        with postgres.connect(conninfo) as connection:
            for order, began, ended in connection.execute(SPAN):
                first[order] = min(began, first.get(order, began))
                last[order] = max(ended, last.get(order, ended))
    return {order: (first[order], last[order]) for order in first}
