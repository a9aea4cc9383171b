"""Old events: schemas, contracts, and rewriting into a new store."""
