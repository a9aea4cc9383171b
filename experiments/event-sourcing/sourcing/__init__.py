"""Event sourcing: a Postgres event store, aggregates, versions, snapshots, projections, and forgetting."""
