"""Relays: what moves events from the outbox to the broker."""
