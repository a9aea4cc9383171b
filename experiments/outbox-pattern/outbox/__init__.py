"""Transactional outbox: the write, relays, the guard, the inbox.

Read these in this order:

1. schema.sql         the outbox beside the business table
2. table.py           the two inserts: the business row and its event
3. writer.py          the write, in one round trip
4. windows.py         the crash windows: between which steps a process can die
5. relay/message.py   a row, and the Kafka message that it becomes
6. relay/polling.py   publish, then mark
7. relay/reading.py   snapshot windows; cursor.py publishes what they show
8. relay/wal.py       the relay on the log
9. inbox.py           the consumer's memory, in the transaction of its effect

wrong/ has the popular ways that fail, and stage/ what the experiments
need.
"""
