"""The diagram as tutorials draw it, kept to be seen failing, and a step without an idempotency key.

It compensates with a single throw event, and does nothing about the step that failed.
"""

import time
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from saga.camunda import BPMN
from saga.camunda.diagram import SPACES
from saga.fates import COUNT
from saga.order import Action, Order, Reply, Request
from saga.services.shop import Services
from shared.faults import Hook
from shared.postgres import Connection

MODEL = f"{{{SPACES['bpmn']}}}"
WORK = 0.6  # seconds that a slow payment provider takes
TAKE = "update accounts set cents = cents - %s where customer = %s"
CHARGE = """
insert into charges (order_id, customer, cents, status) values (%s, %s, %s, 'charged')
on conflict (order_id) do update set charged = charges.charged + 1
"""


def as_tutorials_draw_it() -> bytes:
    """order.bpmn with `step failed -> compensate -> end` in place of what it does about a failure."""
    for prefix, space in SPACES.items():  # a value in the file has the prefix, too
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.fromstring(BPMN.read_bytes())  # noqa: S314  (our own file)
    root.remove(_found(root, "bpmndi:BPMNDiagram"))  # the layout of what is not there any more
    failed = _found(root, ".//bpmn:subProcess[@id='failed']")
    for child in list(failed):
        if child.get("id") not in {"step-failed", "compensated"}:
            failed.remove(child)
    throw = SubElement(failed, f"{MODEL}intermediateThrowEvent", id="compensate")
    SubElement(throw, f"{MODEL}compensateEventDefinition")
    for source, target in (("step-failed", "compensate"), ("compensate", "compensated")):
        SubElement(failed, f"{MODEL}sequenceFlow", id=f"to-{target}", sourceRef=source, targetRef=target)
    return ElementTree.tostring(root)


def slowly(services: Services, request: Request, at: Hook) -> Reply:
    """Have the service carry it out; the first payment of an order takes its time to answer."""
    reply = services(request, at=at)
    _linger(services, request)
    return reply


def slowly_without_a_key(services: Services, request: Request, at: Hook) -> Reply:
    """Likewise, but the payment service does not remember what it has been asked."""
    if request.action is not Action.CHARGE:
        return services(request, at=at)
    _charge(services.connections["payments"], request.order)
    _linger(services, request)
    return Reply(request.saga, request.action)


def _linger(services: Services, request: Request) -> None:
    if request.action is Action.CHARGE:
        row = services.connections["payments"].execute(COUNT, [f"{request.id}:slow"]).fetchone()
        if row and row[0] == 1:
            time.sleep(WORK)


def _charge(connection: Connection, order: Order) -> None:
    with connection.transaction():
        connection.execute(TAKE, [order.cents, order.customer])
        connection.execute(CHARGE, [order.id, order.customer, order.cents])


def _found(root: Element, path: str) -> Element:
    found = root.find(path, SPACES)
    if found is None:
        raise ValueError(f"{BPMN.name} has no {path}")
    return found
