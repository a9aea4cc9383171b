"""The transactional outbox: write the event beside the row, in one transaction; publish it from there."""
