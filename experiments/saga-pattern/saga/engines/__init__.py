"""The saga on popular engines: the options beside our own orchestrator."""
