"""The saga as a BPMN diagram that Camunda 7 executes, with our workers, which ask it for tasks."""

from pathlib import Path

BPMN = Path(__file__).with_name("order.bpmn")
SPACES = {
    "bpmn": "http://www.omg.org/spec/BPMN/20100524/MODEL",
    "bpmndi": "http://www.omg.org/spec/BPMN/20100524/DI",
    "dc": "http://www.omg.org/spec/DD/20100524/DC",
    "di": "http://www.omg.org/spec/DD/20100524/DI",
}
