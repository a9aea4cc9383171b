"""Sagas: one order over four services, by choreography, by our own orchestrator, and by engines that people use.

Read these in this order:

order.py                      the order, its four steps, what undoes each of them
services/participant.py       a service: one answer for each request, and no late step after its compensation
plain.py                      the simplest saga that is right: a loop, and a log with a row for each saga
orchestrator/definition.py    a saga as data
orchestrator/machine.py       the state machine of one saga: pure
orchestrator/store.py         sagas in Postgres
orchestrator/worker.py        the process that moves sagas on
choreography/service.py       the same without anybody in charge: a service that hears events, and reacts
engines/temporal/workflow.py  the same on an engine that people use

wrong/ has the popular ways that fail, lessons/ has ways side by side, and stage/ what the experiments need.
"""
