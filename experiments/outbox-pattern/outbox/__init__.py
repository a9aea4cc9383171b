"""Transactional outbox: the write, relays, the guard, the inbox.

Read these in this order:

1. schema.sql         the outbox beside the business table
2. table.py           the two inserts, and which event has a row
3. writer.py          the write, in one round trip
4. windows.py         where a process can die in between
5. relay/message.py   a row as the message that it becomes
6. relay/polling.py   publish, then mark
7. relay/reading.py   snapshot windows; cursor.py publishes what they show
8. relay/wal.py       the relay on the log
9. inbox.py           the consumer's memory, in the transaction of its effect

What goes wrong in the popular ways is in wrong/, ways side by side are in lessons/, and what experiments run and watch
with is in stage/.
"""
