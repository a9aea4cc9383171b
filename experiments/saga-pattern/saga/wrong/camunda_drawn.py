"""The diagram as tutorials draw it, kept to be seen failing, and a step without an idempotency key.

It compensates with a single throw event, and does nothing about the step that failed.
"""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from saga.engines.camunda import BPMN
from saga.order import Action, Reply, Request
from saga.services.shop import Services
from saga.stage.diagram import SPACES
from saga.stage.fates import COUNT
from saga.wrong.keyless import charge_again
from shared.faults import Hook
from shared.postgres import Connection
from shared.wait import until

MODEL = f"{{{SPACES['bpmn']}}}"
LOCK = 0.3  # seconds: shorter than the work, which is not over before it is asked for again
ASKED = "select number from attempts where request_id = %s and number > 1"


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
    if request.action is Action.CHARGE:
        _linger(services.connections["payments"], request, _count(services.connections["payments"], request))
    return reply


def slowly_without_a_key(services: Services, request: Request, at: Hook) -> Reply:
    """Likewise, but the payment service does not remember what it has been asked."""
    if request.action is not Action.CHARGE:
        return services(request, at=at)
    with (payments := services.connections["payments"]).transaction():  # what is charged is counted
        charge_again(payments, request.order)
        number = _count(payments, request)
    _linger(payments, request, number)
    return Reply(request.saga, request.action)


def _count(payments: Connection, request: Request) -> int:
    """How often this payment has been asked for, this time included."""
    row = payments.execute(COUNT, [_slow(request)]).fetchone()
    return int(row[0]) if row else 0


def _linger(payments: Connection, request: Request, number: int) -> None:
    """The provider is slow at the first time: its answer comes when Camunda has lost patience, and not by luck."""
    if number == 1:
        until(f"{request.id} to be asked for again", lambda: payments.execute(ASKED, [_slow(request)]).fetchone())


def _slow(request: Request) -> str:
    """Its row in `attempts` is none that a fate counts in."""
    return f"{request.id}:slow"


def _found(root: Element, path: str) -> Element:
    found = root.find(path, SPACES)
    if found is None:
        raise ValueError(f"{BPMN.name} has no {path}")
    return found
