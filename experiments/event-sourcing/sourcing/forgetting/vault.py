"""Crypto-shredding: a person's data is sealed under a key of that person, and forgotten by deleting the key.

AES-256-GCM (NIST SP 800-38D), a random 96-bit nonce per value. The place of a value (stream, subject, field) is
authenticated with it, so that no ciphertext can be moved. Data keys are wrapped by a master key that the database
never sees. What is not hidden: who has data where, and how long it is.

A deleted key row lives on in the log, in dead rows and in backups of the table, wrapped. Forgetting is complete when
those have expired, or when `rotate` has wrapped the remaining keys anew and the old master key is destroyed.
"""

import base64
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.pq import TransactionStatus

from shared import codec
from shared.errors import ConfigurationError, NotWritable
from shared.postgres import Connection
from sourcing.errors import SourcingError

SCHEMA = Path(__file__).with_name("vault.sql")
VARIABLE, FILE_VARIABLE = "VAULT_MASTER_KEY", "VAULT_MASTER_KEY_FILE"
FORGOTTEN = "[forgotten]"  # what a forgotten person's field reads as
SEALED = "sealed.1."  # how a sealed value begins: 1 is the format
KEY, NONCE = 32, 12  # bytes
KEPT = 1.0  # seconds for which a process remembers a key: this long another one may read on after `forget`
MOST = 10_000  # keys remembered at most

FIND = "select wrapped, master from vault_keys where subject = %s"
MAKE = "insert into vault_keys (subject, wrapped, master) values (%s, %s, %s) on conflict do nothing"
# One row per person, key or not: a key that is being made and a person that is being forgotten meet in it.
FORGET = """
insert into vault_keys (subject, master, forgotten_at, reason) values (%s, %s, clock_timestamp(), %s)
on conflict (subject) do update set wrapped = null, forgotten_at = excluded.forgotten_at, reason = excluded.reason
where vault_keys.wrapped is not null
"""
REWRAP = """
update vault_keys set wrapped = new.wrapped, master = %s
from unnest(%s::text[], %s::bytea[]) as new (subject, wrapped) where vault_keys.subject = new.subject
"""


class VaultError(SourcingError):
    """The root of what the vault raises."""


class WrongMasterKey(VaultError):
    """The key was wrapped by another master key than the one given."""


class BrokenSeal(VaultError):
    """A value or a key that is not what was sealed here: changed, moved, or never sealed."""


class KeyMissing(VaultError):
    """There is no key, and nobody asked to forget: the wrong database, or a lost row."""


class SubjectForgotten(VaultError):
    """New data of a person who was forgotten. Whoever comes back gets a new pseudonym."""


class Seat(NamedTuple):
    """Where a sealed value belongs."""

    stream: str
    subject: str
    field: str

    def __str__(self) -> str:
        return f"field {self.field!r} of {self.subject!r} in stream {self.stream!r}"


def master_key(environment: Mapping[str, str] = os.environ) -> bytes:
    """The 32 bytes from VAULT_MASTER_KEY_FILE or VAULT_MASTER_KEY, in base64. There is no default.

    Raises ConfigurationError.
    """
    source = FILE_VARIABLE if FILE_VARIABLE in environment else VARIABLE
    try:
        text = Path(environment[source]).read_text() if source == FILE_VARIABLE else environment[source]
        key = base64.b64decode(text.strip(), validate=True)
    except KeyError:
        raise ConfigurationError(f"there is no master key: set {FILE_VARIABLE} or {VARIABLE}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the master key of {source} cannot be read: {error}") from error
    if len(key) != KEY:
        raise ConfigurationError(f"the master key of {source} has {len(key)} bytes, not {KEY}")
    return key


class Vault:
    """Seals and opens. Its connection is its own, in autocommit: a key is committed before anything is sealed by it."""

    def __init__(self, connection: Connection, master: bytes, kept: float = KEPT) -> None:
        self.connection = connection
        self.kept = kept
        self._use(master)

    def seal(self, place: Seat, value: Any) -> str:
        """A JSON value as text that only its person's key opens; the first one makes the key.

        Raises SubjectForgotten, WrongMasterKey, NotWritable, and ValueError for the placeholder itself.
        """
        if value == FORGOTTEN:
            raise ValueError(f"{place}: {FORGOTTEN!r} is no value of a person")
        try:
            written = codec.encode(value)
        except NotWritable as error:
            raise NotWritable(f"{place} cannot be sealed: {error}") from error
        cipher = self._cipher(place, make=True)
        if cipher is None:
            raise SubjectForgotten(f"{place}: the person was forgotten")
        return SEALED + base64.b64encode(_encrypt(cipher, written, place)).decode()

    def open(self, place: Seat, sealed: Any) -> Any:
        """The value, or FORGOTTEN. Raises BrokenSeal, KeyMissing and WrongMasterKey."""
        if not isinstance(sealed, str) or not sealed.startswith(SEALED):
            raise BrokenSeal(f"{place} is not sealed")
        cipher = self._cipher(place)
        if cipher is None:
            return FORGOTTEN
        try:
            box = base64.b64decode(sealed.removeprefix(SEALED), validate=True)
            return codec.decode(_decrypt(cipher, box, place))
        except (InvalidTag, ValueError) as error:
            raise BrokenSeal(f"{place} was changed, or sealed for another place") from error

    def forget(self, subject: str, reason: str = "") -> bool:
        """Delete the person's key; returns whether there was anything to do. Undone by nothing but a backup."""
        self._ciphers.pop(subject, None)
        return self.connection.execute(FORGET, [subject, self._fingerprint, reason]).rowcount == 1

    def rotate(self, master: bytes) -> int:
        """Wrap every remaining key by a new master key; returns how many. The old one can then be destroyed.

        Other processes meet WrongMasterKey until they are given the new one. Raises WrongMasterKey, BrokenSeal.
        """
        with self.connection.transaction():
            self.connection.execute("lock table vault_keys in share row exclusive mode")
            rows = self.connection.execute("select subject, wrapped, master from vault_keys where wrapped is not null")
            new = AESGCM(master)
            keys = {subject: self._unwrap(subject, wrapped, by) for subject, wrapped, by in rows}
            wrapped = [_wrap(new, key, subject) for subject, key in keys.items()]
            self.connection.execute(REWRAP, [_fingerprint(master), list(keys), wrapped])
        self._use(master)
        return len(keys)

    def _use(self, master: bytes) -> None:
        self._master, self._fingerprint = AESGCM(master), _fingerprint(master)
        self._ciphers: dict[str, tuple[AESGCM | None, float]] = {}

    def _cipher(self, place: Seat, make: bool = False) -> AESGCM | None:
        """The person's cipher; None when forgotten."""
        cipher, until = self._ciphers.get(place.subject, (None, 0.0))
        if time.monotonic() >= until:
            cipher = self._find(place, make)
            if len(self._ciphers) >= MOST:
                self._ciphers.clear()
            self._ciphers[place.subject] = cipher, time.monotonic() + self.kept
        return cipher

    def _find(self, place: Seat, make: bool) -> AESGCM | None:
        row = self.connection.execute(FIND, [place.subject]).fetchone()
        if row is None and make:
            self._make(place.subject)
            row = self.connection.execute(FIND, [place.subject]).fetchone()
        if row is None:
            raise KeyMissing(f"{place}: there is no key, and nobody asked to forget the person")
        return None if row[0] is None else AESGCM(self._unwrap(place.subject, *row))

    def _make(self, subject: str) -> None:
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            # Rolled back, the key would be lost, and with it what other transactions have sealed by it.
            raise VaultError(f"{subject!r}: no key can be made in a transaction; give the vault its own connection")
        wrapped = _wrap(self._master, AESGCM.generate_key(8 * KEY), subject)
        self.connection.execute(MAKE, [subject, wrapped, self._fingerprint])

    def _unwrap(self, subject: str, wrapped: bytes, master: bytes) -> bytes:
        if master != self._fingerprint:
            raise WrongMasterKey(
                f"the key of {subject!r} is wrapped by master key {master.hex()}, this one is {self._fingerprint.hex()}"
            )
        try:
            return _decrypt(self._master, wrapped, Seat("", subject, ""))
        except (InvalidTag, ValueError) as error:
            raise BrokenSeal(f"the key of {subject!r} was changed, or is another one's") from error


def _fingerprint(master: bytes) -> bytes:
    return hashlib.sha256(b"vault master key " + master).digest()[:8]


def _wrap(master: AESGCM, key: bytes, subject: str) -> bytes:
    return _encrypt(master, key, Seat("", subject, ""))


def _encrypt(cipher: AESGCM, value: bytes, place: Seat) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + cipher.encrypt(nonce, value, msgspec.json.encode(place))


def _decrypt(cipher: AESGCM, box: bytes, place: Seat) -> bytes:
    return cipher.decrypt(box[:NONCE], box[NONCE:], msgspec.json.encode(place))
