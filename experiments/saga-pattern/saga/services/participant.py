"""A participant of a saga: does what it is asked in one local transaction, once, however often it is asked.

The inbox keeps every request's id with the answer that was given, in the transaction of the effect. A compensation
also answers for the step that it undoes: a step that comes after it, late, from a queue or a retry, is refused.
"""

from collections.abc import Callable, Mapping

from psycopg.errors import DataError, IntegrityError, ProgramLimitExceeded, UniqueViolation

from saga.order import DOES, Action, Reply, Request
from saga.reading import reader
from saga.services.effects import EFFECTS, Effect
from saga.windows import EffectWindow, Hook, nowhere
from shared import codec
from shared.errors import NotReadable, NotWritable
from shared.postgres import Connection

KNOWN = "select reply from inbox where request_id = %s"
ANSWER = "insert into inbox (request_id, reply) values (%s, %s)"
FORESTALL = "insert into inbox (request_id, reply) values (%s, %s) on conflict do nothing"
# What a request may have in it, or its inbox, that no retry would help.
IMPOSSIBLE = DataError, IntegrityError, ProgramLimitExceeded, NotReadable, NotWritable
# What else belongs into the transaction of the effect: an outbox row, for services that answer by message.
Also = Callable[[Connection, Request, Reply], None]

_reply = reader(Reply)


def perform(
    connection: Connection,
    request: Request,
    also: Also | None = None,
    at: Hook = nowhere,
    effects: Mapping[Action, Effect] = EFFECTS,
) -> Reply:
    """Carry out the request; returns its one and only answer. Raises what the effect raises; then nothing is done."""
    if (reply := answer(connection, request)) is None:
        at(EffectWindow.BEFORE)
        try:
            with connection.transaction():
                _forestall(connection, request)
                refused = effects[request.action](connection, request.order)
                reply = Reply(request.saga, request.action, refused)
                connection.execute(ANSWER, [request.id, codec.encode(reply)], prepare=True)
                if also:
                    also(connection, request, reply)
                at(EffectWindow.IN)
        except UniqueViolation:  # the same request, at the same time, by another process: its answer is ours
            reply = answer(connection, request)
            if reply is None:
                raise
    at(EffectWindow.AFTER)
    return reply


def answer(connection: Connection, request: Request) -> Reply | None:
    """The answer that was given to the request before, if it was. Raises NotReadable: the inbox has something else."""
    row = connection.execute(KNOWN, [request.id], prepare=True).fetchone()
    return _reply(row[0]) if row else None


def _forestall(connection: Connection, request: Request) -> None:
    """Before a compensation looks for what there is to undo: its step can no longer be done after it.

    First, since it waits for a step that is just being done; the compensation then sees and undoes it.
    """
    if step := DOES.get(request.action):
        late = Request(request.saga, step, request.order)
        refusal = Reply(request.saga, step, f"{request.action} came before it")
        connection.execute(FORESTALL, [late.id, codec.encode(refusal)], prepare=True)
