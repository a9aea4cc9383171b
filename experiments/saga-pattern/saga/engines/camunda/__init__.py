"""The saga as a BPMN diagram that Camunda 7 carries out, with workers of ours that ask it for tasks."""

from pathlib import Path

BPMN = Path(__file__).with_name("order.bpmn")
