"""Our own orchestrator: sagas are rows in Postgres, commands and replies go through Kafka, a pure state machine
decides.
"""
