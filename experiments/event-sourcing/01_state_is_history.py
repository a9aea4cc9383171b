"""Only events are stored, and the state is computed from them. What does that give?

Customers shop. Every state is recorded while it is live, and compared with what a replay of the events gives. The same
accounts are also kept as rows that are updated in place, with the same bug in both: which of them can be repaired? The
two differ in what a deposit leaves behind: `AccountRows._change` adds the points to the row, `LoyalAccount.apply`
computes them from the event each time.
"""

from functools import partial

from sourcing import audit
from sourcing.repository import Repository
from sourcing.shop import loyalty
from sourcing.shop.loyalty import LoyalAccount
from sourcing.stage import shopping
from sourcing.stage.shopping import Shopping
from sourcing.wrong.crud import AccountRows

from shared.experiment import Experiment, Run

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


@experiment.run
def main(run: Run) -> None:
    customers, accounts = run.pick((10, 100), (60, 500), (300, 2_000))
    run.parameters.update({"customers": customers, "accounts": accounts})
    with shopping.open_shop(run) as shop:
        with run.step("customers shop, every state is noted"):
            for number in range(customers):
                shop.visit(number)
        with run.step("every state that ever was, by replay"):
            claim_replay(run, shop)
        claim_clock(run, shop)
        claim_commands(run, shop)
        with run.step("who, when, why"):
            claim_audit(run, shop)
        with run.step("somebody tries to change the past"):
            claim_append_only(run, shop)
        with run.step("a bug in the points, in rows and in events"):
            claim_mending(run, shop, accounts)


def claim_replay(run: Run, shop: Shopping) -> None:
    """Every prefix of every stream, by its version and by the time of its last event."""
    total, last = len(shop.live), shop.last
    now = sum(moment.is_loaded() for moment in last)
    reached = sum(moment.is_replayed(version=moment.version) for moment in shop.live)
    in_time = sum(moment.is_replayed(time=moment.time) for moment in shop.live)
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


def claim_clock(run: Run, shop: Shopping) -> None:
    """At the time of the second event, with a clock that was set back by an hour after it."""
    idents = shop.orders_of(3)
    with shop.store.connection.transaction(force_rollback=True):
        shop.store.connection.execute(shopping.SET_BACK)
        times = [[event.recorded_at for event in shop.store.read(f"order-{ident}")] for ident in idents]
        found = [shop.orders.load_at(ident, time=at[1]).version for ident, at in zip(idents, times, strict=True)]
        late = [shop.orders.load_at(ident, time=at[2]).version for ident, at in zip(idents, times, strict=True)]
    lengths = [len(at) for at in times]
    run.about(EVENTS, topics=[f"{FUNDAMENTALS}/current-state-via-replay"]).claim(
        "if the clock was set back, a replay to a time stops at the first event with a later time, and skips none",
        found == lengths and not any(late) and len(idents) > 0,
        fact=f"{len(found)} orders loaded whole, and {len(late)} as before their first event (compare ddes#67)",
    )


def claim_commands(run: Run, shop: Shopping) -> None:
    written = shop.written
    run.about(EVENTS, topics=[f"{DESIGN}/command-handling"]).claim(
        "a command is either recorded as an event, or refused and leaves nothing",
        written == shop.commands > 0 and shop.refused > 0,
        fact=f"{written:,} events of {shop.commands:,} commands; {shop.refused:,} refused",
    )
    idents = shop.orders_of(1)
    with shop.store.connection.transaction(force_rollback=True):
        for ident in idents:
            shop.append_past_root(ident)
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


def claim_append_only(run: Run, shop: Shopping) -> None:
    """As a role that may insert and select, and as the owner of the table."""
    connection, attacks = shop.store.connection, shopping.ATTACKS
    with shopping.application_role(connection, run.name):
        refused = sum(shopping.is_refused(connection, attack) for attack in attacks)
        opened = shop.accounts.execute("role", lambda account: account.open("customer-0"))
    run.about("role with insert and select", topics=[APPEND_ONLY]).claim(
        "the application's role may insert and select: Postgres refuses to let it update, delete or truncate",
        refused == len(attacks) and opened.version == 1,
        fact=f"{refused} of {len(attacks)} refused, an append taken",
    )
    with connection.transaction(force_rollback=True):
        forged = connection.execute(shopping.FORGERY).rowcount
        last = [moment for moment in shop.last if moment.home is shop.accounts]
        changed = sum(not moment.is_loaded() for moment in last)
    run.about("owner of the table", wrong_way=True, topics=[APPEND_ONLY]).claim(
        "the owner of the table rewrites the past, and every replay believes it",
        forged > 0 and changed == len(last) > 0,
        fact=f"{forged} deposits forged, {changed} of {len(last)} accounts wrong, no error",
    )


def claim_mending(run: Run, shop: Shopping, count: int) -> None:
    """The same deposits and the same bug in rows and in events; then the rule is mended."""
    paid = shopping.deposits(run.seed, count)
    right = {ident: sum(map(loyalty.whole, cents)) for ident, cents in paid.items()}
    live = Repository(shop.store, partial(LoyalAccount, rule=loyalty.rounded))
    rows = AccountRows(shop.store.connection, loyalty.rounded)
    shopping.pay_in(live, rows, paid)
    mended = Repository(shop.store, LoyalAccount)
    before = sum(live.load(ident).points != points for ident, points in right.items())
    after = sum(mended.load(ident).points != points for ident, points in right.items())
    kept = shopping.kept(rows)
    wrong = sum(points != right[ident] for ident, (_, points) in kept.items())
    lost = shopping.beyond_repair(kept, right)
    events, row = run.about(EVENTS), run.about(ROW, wrong_way=True)
    events.claim(
        "a bug in a rule is mended for the past too: the same events under the right rule, and every account is right",
        before > 0 and after == 0,
        topics=[SOURCE, f"{DESIGN}/event-application"],
        fact=f"{before} of {count} accounts wrong before, {after} after",
    )
    row.claim(
        "rows keep what the bug wrote: right and wrong ones look alike, and no repair can get them all right",
        wrong == before and lost > 0,
        topics=[SOURCE],
        fact=f"{wrong} of {count} rows wrong; the best repair that there can be leaves {lost} wrong",
    )
    for about, buggy, best in ((events, before, after), (row, wrong, lost)):
        about.figure("accounts wrong", buggy, "accounts", x="with the bug")
        about.figure("accounts wrong", best, "accounts", x="best that can be done")


if __name__ == "__main__":
    experiment.main()
