"""Sagas: one order over four services, by choreography, by our own orchestrator, and by popular engines.

Read these in this order:

order.py                      the order, its four steps, what undoes each of them
services/participant.py       a service: one answer for each request, and no step after its compensation
plain.py                      the simplest correct saga: a loop, and a log with one row per saga
orchestrator/definition.py    a saga as data
orchestrator/machine.py       the state machine of one saga: pure functions
orchestrator/store.py         sagas in Postgres
orchestrator/worker.py        the process that moves sagas on
choreography/service.py       the same with nobody in charge: a service that reacts to events
engines/temporal/workflow.py  the same on a popular engine

wrong/ has the popular ways that fail, lessons/ has wrong and right ways side by side, and stage/ what the experiments
need.
"""
