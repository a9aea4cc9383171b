"""Sagas: one order over four services, by choreography, by our own orchestrator, and by engines that people use."""
