"""Another program's process instances on a Camunda."""

import json
from dataclasses import dataclass

from saga.engines.camunda.client import PROCESS
from saga.stage.engines.camunda import CamundaEngine
from saga.stage.foreign import as_text


@dataclass
class Instances:
    """Whoever may call the REST API, with a variable of any text."""

    engine: CamundaEngine

    def begin(self, saga: str, order: bytes) -> None:
        variables = {"order": {"value": as_text(order)}, "timeout": {"value": "PT60S"}}
        body = json.dumps({"businessKey": saga, "variables": variables})
        path = f"/process-definition/key/{PROCESS}/tenant-id/{self.engine.camunda.tenant}/start"
        self.engine.camunda.ask("POST", path, content=body, headers={"content-type": "application/json"})

    def reasons(self) -> list[str]:
        return [reason for reason in self.engine.camunda.incidents().values() if reason.startswith("unreadable")]
