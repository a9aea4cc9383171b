"""Engines that people choose from, and the saga on each: options beside the orchestrator of our own."""
