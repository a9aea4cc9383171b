"""Another program's messages in the queues of a state machine."""

from dataclasses import dataclass

from saga.stage.engines.stepfunctions import StepFunctions
from saga.stage.foreign import as_text


@dataclass
class Messages:
    """Whoever may send to a queue. What it sends has no token that could be given back."""

    engine: StepFunctions

    def begin(self, saga: str, order: bytes) -> None:
        text = f'{{"saga":"{saga}","order":{as_text(order)}}}'
        url = self.engine.sagas.machine.queues["orders"]
        self.engine.sagas.queue.send_message(QueueUrl=url, MessageBody=text)

    def reasons(self) -> list[str]:
        self.engine.ended(["nobody"])  # has it look into the operator's queue
        return [plea.reason["unreadable"] for plea in self.engine.unreadable]
