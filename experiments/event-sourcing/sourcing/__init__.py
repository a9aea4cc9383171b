"""Event sourcing: a Postgres event store, aggregates, versions, snapshots, projections, and forgetting.

Read these in this order:

event.py       an event, as it goes into a store and as it comes out of it
store.py       what an event store is, and what it promises
postgres.py    the store: one table, one statement per append, no lock
aggregate.py   decides from its state, records each decision as an event; its state is the fold of its events
repository.py  load, decide, append with the loaded version as the expected one; again after a conflict or no answer
projection.py  events in, a read model out, and the checkpoint in the same transaction
checkpoint.py  how far a projection has read, and how far it is behind
snapshots.py   a saved state from which the fold begins
upcasting.py   old events read as current ones

evolution/ is about old events, forgetting/ about a person's data. stores/ has the same interface on other stores, shop/
the example. wrong/ has the popular ways that fail, and stage/ what the experiments need.
"""
