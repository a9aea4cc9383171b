"""Only what happened is kept, and the state is worked out from it. What does that give?

Customers shop; every state is noted while it is live, and compared with what replay makes of the events. Beside it the
same accounts as rows that are updated in place, with the same bug in both: which of them can be put right?
"""

import random
from collections import Counter, defaultdict
from functools import partial
from typing import Any

from sourcing import audit, postgres
from sourcing.aggregate import Aggregate
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop import loyalty
from sourcing.shop.account import Account
from sourcing.shop.loyalty import LoyalAccount
from sourcing.shop.order import Order
from sourcing.stage import tampering
from sourcing.stage.shopping import Shopping, state_of
from sourcing.wrong import crud

from shared.experiment import Experiment, Run
from shared.postgres import Connection, connect

FUNDAMENTALS, DESIGN = "I.2/event-sourcing-fundamentals", "I.2/aggregate-design"  # syllabus groups
SOURCE, APPEND_ONLY = f"{FUNDAMENTALS}/events-as-source-of-truth", f"{FUNDAMENTALS}/append-only-event-log"
experiment = Experiment(
    title="State is history",
    servers=("postgres",),
    topics=(
        "I.2/event-sourcing-fundamentals/state-from-event-history",
        APPEND_ONLY,
        "I.2/event-sourcing-fundamentals/current-state-via-replay",
        SOURCE,
        "I.2/aggregate-design/aggregate-root",
        "I.2/aggregate-design/event-application",
        "I.2/aggregate-design/command-handling",
    ),
)
ROW, EVENTS = "row updated in place", "events"
DEPOSITS = 600, 1_000, 1_400, 2_000  # cents


@experiment.run
def main(run: Run) -> None:
    customers, accounts = run.pick((10, 100), (60, 500), (300, 2_000))
    run.parameters.update({"customers": customers, "accounts": accounts})
    conninfo = run.schema()
    postgres.create(conninfo)
    with connect(conninfo) as connection:
        shop = Shopping(PostgresStore(connection), random.Random(run.seed))
        with run.step("customers shop, every state is noted"):
            for number in range(customers):
                shop.visit(number)
        with run.step("every state that ever was, by replay"):
            claim_replay(run, shop)
        claim_clock(run, shop, connection)
        claim_commands(run, shop, connection)
        with run.step("who, when, why"):
            claim_audit(run, shop)
        with run.step("somebody tries to change the past"):
            claim_append_only(run, shop, connection)
        with run.step("a bug in the points, in rows and in events"):
            claim_mending(run, connection, accounts)


def claim_replay(run: Run, shop: Shopping) -> None:
    """Every prefix of every stream, by its version and by the time of its last event."""
    repositories: dict[type[Aggregate], Repository[Any]] = {Account: shop.accounts, Order: shop.orders}
    last: dict[tuple[type[Aggregate], str], bytes] = {}
    reached = in_time = 0
    for (kind, ident, version), state in shop.live.items():
        load = partial(repositories[kind].load_at, ident)
        reached += state_of(load(version=version)) == state
        [then] = shop.store.read(f"{kind.category}-{ident}", after=version - 1, limit=1)
        in_time += state_of(load(time=then.recorded_at)) == state
        last[kind, ident] = state
    now = sum(state_of(repositories[kind].load(ident)) == state for (kind, ident), state in last.items())
    total = len(shop.live)
    run.about(EVENTS, topics=[f"{FUNDAMENTALS}/state-from-event-history", f"{DESIGN}/event-application"]).claim(
        "folding its events gives every aggregate the state that it had when it was live",
        now == len(last) > 0,
        fact=f"{now} of {len(last)} aggregates",
    )
    run.about(EVENTS, topics=[f"{FUNDAMENTALS}/current-state-via-replay", f"{DESIGN}/event-application"]).claim(
        "replay reaches every state that there ever was, by version and by time",
        reached == in_time == total == shop.commands > 0,
        fact=f"{reached:,} of {total:,} states; {len(last)} of them are current, and all that rows would have kept",
    )


def claim_clock(run: Run, shop: Shopping, connection: Connection) -> None:
    """At the time of the second event, with a clock that was set back by an hour after it."""
    idents = sorted({ident for kind, ident, version in shop.live if kind is Order and version > 2})
    with connection.transaction(force_rollback=True):
        connection.execute(tampering.SET_BACK)
        times = [[event.recorded_at for event in shop.store.read(f"order-{ident}")] for ident in idents]
        found = [shop.orders.load_at(ident, time=at[1]).version for ident, at in zip(idents, times, strict=True)]
        late = [shop.orders.load_at(ident, time=at[2]).version for ident, at in zip(idents, times, strict=True)]
    lengths = [len(at) for at in times]
    run.about(EVENTS, topics=[f"{FUNDAMENTALS}/current-state-via-replay"]).claim(
        "where the clock was set back, a replay to a time stops at the first event that is later, and skips none",
        found == lengths and not any(late) and len(idents) > 0,
        fact=f"{len(found)} orders loaded whole, and {len(late)} as before their first event (compare ddes#67)",
    )


def claim_commands(run: Run, shop: Shopping, connection: Connection) -> None:
    [(written,)] = connection.execute("select count(*) from events").fetchall()
    run.about(EVENTS, topics=[f"{DESIGN}/command-handling"]).claim(
        "a command is recorded, and then it has happened, or refused, and leaves nothing",
        written == shop.commands > 0 and shop.refused > 0,
        fact=f"{written:,} events of {shop.commands:,} commands; {shop.refused:,} refused",
    )
    late = NewEvent("LineAdded", {"product": "late", "quantity": 1, "cents": 100})
    idents = [ident for kind, ident, version in shop.live if kind is Order and version == 1]
    with connection.transaction(force_rollback=True):
        for ident in idents:
            shop.store.append(f"order-{ident}", [late])
        shipped = [order for order in map(shop.orders.load, idents) if order.status == "shipped"]
    unpaid = sum(order.paid != order.total for order in shipped)
    run.about("append past the root", wrong_way=True, topics=[f"{DESIGN}/aggregate-root"]).claim(
        "an event that is written past the root is taken by the store, and breaks what the root promises",
        unpaid == len(shipped) > 0,
        fact=f"{unpaid} of {len(shipped)} shipped orders got a line that nobody paid; the root refused it each time",
    )


def claim_audit(run: Run, shop: Shopping) -> None:
    """Every event says who and why; from every refund the way leads back to the order, and to the first request."""
    steps = [audit.step(event) for event in audit.everything(shop.store)]
    explained = sum(step.complete for step in steps)
    refunds = [step for step in steps if step.what == "Deposited" and step.reason.startswith("pays back")]
    ways = [audit.causes(audit.conversation(shop.store, refund.correlation_id), refund) for refund in refunds]
    back = sum([step.what for step in way] == ["Deposited", "OrderCancelled", "OrderPaid"] for way in ways)
    asked = sum(way[-1].causation_id.startswith("request-") for way in ways)
    run.about(EVENTS, topics=[SOURCE, APPEND_ONLY]).claim(
        "who, when, why: every change names them, and a refund leads back over two streams to the request",
        explained == len(steps) > 0 and back == asked == len(refunds) > 0,
        fact=f"{explained:,} of {len(steps):,} changes explained; {back} of {len(refunds)} refunds traced",
    )


def claim_append_only(run: Run, shop: Shopping, connection: Connection) -> None:
    """As a role that may insert and select, and as the owner of the table."""
    with tampering.application_role(connection, run.name):
        refused = sum(tampering.is_refused(connection, attack) for attack in tampering.ATTACKS)
        version = shop.store.append("account-role", [NewEvent("AccountOpened", {"owner": "customer-0"})], expected=0)
    run.about("role with insert and select", topics=[APPEND_ONLY]).claim(
        "the application's role may insert and select: Postgres refuses to let it update, delete or truncate",
        refused == len(tampering.ATTACKS) and version == 1,
        fact=f"{refused} of {len(tampering.ATTACKS)} refused, an append taken",
    )
    with connection.transaction(force_rollback=True):
        forged = connection.execute(tampering.FORGERY).rowcount
        now = {ident: state for (kind, ident, _), state in shop.live.items() if kind is Account}
        changed = sum(state_of(shop.accounts.load(ident)) != state for ident, state in now.items())
    run.about("owner of the table", wrong_way=True, topics=[APPEND_ONLY]).claim(
        "the owner of the table rewrites the past, and every replay believes it",
        forged > 0 and changed == len(now) > 0,
        fact=f"{forged} deposits forged, {changed} of {len(now)} accounts wrong, no error",
    )


def claim_mending(run: Run, connection: Connection, count: int) -> None:
    """The same deposits and the same bug in rows and in events; then the rule is mended."""
    rng = random.Random(f"{run.seed} points")
    paid = {f"points-{n:04d}": rng.choices(DEPOSITS, k=rng.randrange(1, 5)) for n in range(count)}
    right = {ident: sum(map(loyalty.whole, cents)) for ident, cents in paid.items()}
    connection.execute(crud.SCHEMA)
    live = Repository(PostgresStore(connection), partial(LoyalAccount, rule=loyalty.rounded))
    rows = crud.AccountRows(connection, loyalty.rounded)
    for ident, cents in paid.items():
        deposit_all(live, ident, cents)
        with connection.transaction():
            rows.open(ident, ident)
            for amount in cents:
                rows.deposit(ident, amount)
    mended = Repository(live.store, LoyalAccount)
    before = sum(live.load(ident).points != points for ident, points in right.items())
    after = sum(mended.load(ident).points != points for ident, points in right.items())
    kept = {ident: row for ident, *row in connection.execute("select id, balance, points from account_rows").fetchall()}
    wrong = sum(row[1] != right[ident] for ident, row in kept.items())
    alike: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for ident, (balance, points) in kept.items():
        alike[balance, points][right[ident]] += 1
    # Rows that are equal get equal points from any repair: where several are right, only the most frequent can win.
    lost = sum(answers.total() - max(answers.values()) for answers in alike.values())
    run.about(EVENTS, topics=[SOURCE, f"{DESIGN}/event-application"]).claim(
        "a bug in a rule is mended for the past too: the same events under the right rule, and every account is right",
        before > 0 and after == 0,
        fact=f"{before} of {count} accounts wrong before, {after} after",
    )
    run.about(ROW, wrong_way=True, topics=[SOURCE]).claim(
        "rows keep what the bug wrote: right and wrong ones look alike, and no repair can get them all right",
        wrong == before and lost > 0,
        fact=f"{wrong} of {count} rows wrong; the best repair that there can be leaves {lost} wrong",
    )
    for variant, values in ((EVENTS, (before, after)), (ROW, (wrong, lost))):
        for x, value in zip(("with the bug", "best that can be done"), values, strict=True):
            run.figure("accounts wrong", value, "accounts", variant=variant, wrong_way=variant == ROW, x=x)


def deposit_all(accounts: Repository[LoyalAccount], ident: str, cents: list[int]) -> None:
    loyal = accounts.make(ident)
    loyal.open(ident)
    for amount in cents:
        loyal.deposit(amount)
    accounts.save(loyal)


if __name__ == "__main__":
    experiment.main()
