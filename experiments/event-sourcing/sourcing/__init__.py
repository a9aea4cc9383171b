"""Event sourcing: a Postgres event store, aggregates, versions, snapshots, projections, and forgetting.

Read these in this order:

event.py       an event, as it goes into a store and as it comes out of it
store.py       what an event store is, and what it promises
postgres.py    the store: one table, one statement per append, no lock
aggregate.py   decides by its state, records what it decided, and is the fold of its events
repository.py  load, decide, append under the version that was seen; again after a conflict, or without an answer
projection.py  events in, a read model out, and the place noted in the same transaction
checkpoint.py  that place, and how far it is behind
snapshots.py   a state to begin the fold from
upcasting.py   old events read as current ones

evolution/ and forgetting/ go deeper: old events, and a person's data. stores/ has the same port on other stores, shop/
the example. wrong/ has the popular ways that fail, and stage/ what the experiments need.
"""
