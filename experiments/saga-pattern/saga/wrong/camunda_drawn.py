"""The diagram as tutorials draw it.

It compensates with a single throw event, and does nothing about the step that failed.
"""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from saga.engines.camunda import BPMN, SPACES

MODEL = f"{{{SPACES['bpmn']}}}"


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


def _found(root: Element, path: str) -> Element:
    found = root.find(path, SPACES)
    if found is None:
        raise ValueError(f"{BPMN.name} has no {path}")
    return found
