"""Another program's workflows in the database of DBOS."""

from dataclasses import dataclass

from saga.stage.engines.dbos import Dbos
from saga.stage.foreign import as_text


@dataclass
class Enqueued:
    """A client that puts whatever it has into the queue."""

    engine: Dbos

    def begin(self, saga: str, order: bytes) -> None:
        self.engine.enqueue(saga, as_text(order))

    def reasons(self) -> list[str]:
        found = self.engine.client.list_workflows(status="ERROR", workflow_id_prefix="odd-")
        return [str(one.error) for one in found]
