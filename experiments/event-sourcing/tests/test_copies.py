"""The search for a person's text finds it where it is, in either of its writings, and not where it is not."""

import random
from pathlib import Path

from sourcing.forgetting import vault
from sourcing.postgres import PostgresStore
from sourcing.repository import as_stored
from sourcing.stage import copies
from sourcing.stage.copies import Where

from shared.postgres import Connection

WANTED = copies.needles(["Zoë"])


def test_files_are_searched_for_the_text_and_for_its_hex_digits(tmp_path: Path) -> None:
    for name, content in (("base/1", "name: Zoë".encode()), ("pg_wal/1", b"\\x5a6fc3ab"), ("other", b"Zoe")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = copies.search_files([tmp_path, tmp_path], {"zoe": WANTED})["zoe"]
    assert +found == {Where.FILES: 1, Where.LOG: 1}


def test_every_table_is_searched_and_a_backup_of_it_too(
    store: PostgresStore, connection: Connection, tmp_path: Path
) -> None:
    connection.execute(copies.SCHEMA)
    people = copies.people(random.Random(1), 2)
    wanted = copies.needles(next(iter(people.values())).texts)
    copies.register(store, people)
    copies.project(connection, store, as_stored)
    copies.backup(connection, tmp_path / "backup")
    assert +copies.search_tables(connection, wanted) == {Where.EVENTS: 2, Where.READ_MODEL: 1}
    assert copies.search_backup(tmp_path / "backup", wanted) == {Where.BACKUP: 3}


def test_a_table_comes_back_from_its_backup(connection: Connection, tmp_path: Path) -> None:
    connection.execute(vault.SCHEMA.read_text())
    connection.execute("insert into vault_keys (subject, wrapped, master) values ('1', '\\x00ff0a09', 'm')")
    copies.backup(connection, tmp_path / "backup")
    connection.execute("truncate vault_keys")
    copies.restore(connection, tmp_path / "backup" / "vault_keys")
    assert connection.execute("select subject, wrapped from vault_keys").fetchall() == [("1", b"\x00\xff\n\t")]
