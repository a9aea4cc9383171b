"""Camunda and Step Functions as tutorials have them: the diagram, the catchers, and a worker that knows no key."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from saga.engines.camunda import BPMN, SPACES
from saga.engines.stepfunctions.client import Definition
from saga.order import STEPS, UNDO, Action, Reply, Request
from saga.services.shop import Services
from saga.windows import Hook
from saga.wrong.keyless import charge_again

MODEL = f"{{{SPACES['bpmn']}}}"


def as_tutorials_draw_it() -> bytes:
    """order.bpmn with `step failed -> compensate -> end` in place of what it does about a failure.

    A single throw event compensates, and nothing is done about the step that failed.
    """
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


def _found(root: Element, path: str) -> Element:
    found = root.find(path, SPACES)
    if found is None:
        raise ValueError(f"{BPMN.name} has no {path}")
    return found


def as_samples_catch(asl: Definition) -> Definition:
    """The same, with the catchers of most samples: whatever happened, undo the steps *before* the one that failed."""
    for step, before in zip(STEPS, (None, *STEPS), strict=False):
        for catcher in asl["States"][step]["Catch"]:
            catcher["Next"] = UNDO[before] if before else "compensated"
    return asl


def ask_without_a_key(services: Services, request: Request, at: Hook) -> Reply:
    """In place of `ask` of a worker for Camunda: the payment service does not remember what it has been asked."""
    if request.action is not Action.CHARGE:
        return services(request, at=at)
    refused = charge_again(services.connections["payments"], request.order)
    return Reply(request.saga, request.action, refused)
