"""Our own orchestrator: sagas are rows in Postgres, commands and replies go by Kafka, a pure state machine decides."""
