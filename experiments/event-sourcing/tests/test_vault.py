"""Sealed data opens in its place, with its person's key and the right master key, or it does not open at all."""

import base64
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sourcing.errors import UnreadableEvent, UnwritableEvent
from sourcing.event import NewEvent, data_of
from sourcing.forgetting import vault as module
from sourcing.forgetting.personal import SHOP, NotClassified, Personal, SealingStore, opening, plain, seal_fields
from sourcing.forgetting.vault import (
    FORGOTTEN,
    BrokenSeal,
    KeyMissing,
    Seat,
    SubjectForgotten,
    Vault,
    VaultError,
    WrongMasterKey,
    master_key,
)
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.customer import Customer
from sourcing.stage import lives
from sourcing.stage.generations import sales

from shared import codec
from shared.codec import MAX_DEPTH
from shared.errors import ConfigurationError, NotWritable
from shared.postgres import Connection, connect

MASTER, OTHER = AESGCM.generate_key(256), AESGCM.generate_key(256)
ADA = Seat("customer-1", "1", "name")


@pytest.fixture
def keys(schema: str) -> Iterator[Connection]:
    """The vault's own session, with an empty key table."""
    with connect(schema) as opened:
        opened.execute(module.SCHEMA.read_text())
        yield opened


@pytest.fixture
def vault(keys: Connection) -> Vault:
    return Vault(keys, MASTER)


def test_what_is_sealed_can_be_opened_and_not_be_read(vault: Vault) -> None:
    sealed = vault.seal(ADA, "Ada")
    assert vault.open(ADA, sealed) == "Ada"
    assert "Ada" not in sealed
    assert b"Ada" not in base64.b64decode(sealed.removeprefix(module.SEALED))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.recursive(st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53), st.lists))
def test_every_json_value_comes_back(value: object, vault: Vault) -> None:
    sealed = vault.seal(ADA, value)
    assert vault.open(ADA, sealed) == value
    assert vault.seal(ADA, value) != sealed, "equal values must not look equal"


@pytest.mark.parametrize(
    "place",
    [ADA._replace(stream="customer-2"), ADA._replace(field="email"), ADA._replace(subject="2")],
    ids=["stream", "field", "subject"],
)
def test_it_cannot_be_moved(place: Seat, vault: Vault) -> None:
    vault.seal(ADA._replace(subject="2"), "a key for the other one")
    sealed = vault.seal(ADA, "Ada")
    with pytest.raises(BrokenSeal, match=f"field '{place.field}' of '{place.subject}' in stream '{place.stream}'"):
        vault.open(place, sealed)


def test_it_cannot_be_changed(vault: Vault) -> None:
    box = bytearray(base64.b64decode(vault.seal(ADA, "Ada").removeprefix(module.SEALED)))
    for place in range(len(box)):
        changed = bytes(box[:place]) + bytes([box[place] ^ 1]) + bytes(box[place + 1 :])
        with pytest.raises(BrokenSeal):
            vault.open(ADA, module.SEALED + base64.b64encode(changed).decode())


@pytest.mark.parametrize("value", ["Ada", "", 17, None, "sealed.1.", "sealed.1.?", "sealed.1.AAAA", "sealed.2.AAAA"])
def test_what_was_never_sealed_is_not_taken(value: object, vault: Vault) -> None:
    vault.seal(ADA, "Ada")
    with pytest.raises(BrokenSeal):
        vault.open(ADA, value)


def test_a_forgotten_person_reads_as_forgotten_and_others_as_before(vault: Vault, keys: Connection) -> None:
    grace = ADA._replace(subject="2")
    ada_sealed, grace_sealed = vault.seal(ADA, "Ada"), vault.seal(grace, "Grace")
    assert vault.forget("1", "request-1")
    assert (vault.open(ADA, ada_sealed), vault.open(grace, grace_sealed)) == (FORGOTTEN, "Grace")
    [(wrapped, reason)] = keys.execute("select wrapped, reason from vault_keys where subject = '1'").fetchall()
    assert (wrapped, reason) == (None, "request-1")


def test_forgetting_again_changes_nothing(vault: Vault) -> None:
    vault.seal(ADA, "Ada")
    assert vault.forget("1", "request-1")
    assert not vault.forget("1", "request-2")


def test_nothing_new_is_sealed_for_who_was_forgotten(vault: Vault) -> None:
    vault.forget("1")
    with pytest.raises(SubjectForgotten, match="field 'name' of '1' in stream 'customer-1'"):
        vault.seal(ADA, "Ada")


def test_another_process_reads_on_only_for_as_long_as_it_keeps_the_key(vault: Vault, keys: Connection) -> None:
    sealed = vault.seal(ADA, "Ada")
    quick, slow = Vault(keys, MASTER, kept=0), Vault(keys, MASTER, kept=3600)
    assert quick.open(ADA, sealed) == slow.open(ADA, sealed) == "Ada"
    vault.forget("1")
    assert (quick.open(ADA, sealed), slow.open(ADA, sealed)) == (FORGOTTEN, "Ada")


def test_the_placeholder_cannot_be_faked(vault: Vault) -> None:
    with pytest.raises(ValueError, match="is no value of a person"):
        vault.seal(ADA, FORGOTTEN)


def test_a_lost_key_is_not_taken_for_a_forgotten_person(vault: Vault, keys: Connection) -> None:
    sealed = vault.seal(ADA, "Ada")
    keys.execute("delete from vault_keys")
    with pytest.raises(KeyMissing, match="nobody asked to forget"):
        Vault(keys, MASTER).open(ADA, sealed)


def test_a_wrong_master_key_is_named_as_such(vault: Vault, keys: Connection) -> None:
    sealed = vault.seal(ADA, "Ada")
    with pytest.raises(WrongMasterKey, match="the key of '1' is wrapped by master key"):
        Vault(keys, OTHER).open(ADA, sealed)


@pytest.mark.parametrize("how", ["changed", "of another person"])
def test_a_key_that_was_tampered_with_is_an_error(how: str, vault: Vault, keys: Connection) -> None:
    sealed = vault.seal(ADA, "Ada")
    vault.seal(ADA._replace(subject="2"), "Grace")
    forged = {
        "changed": "set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)",
        "of another person": "(select wrapped from vault_keys where subject = '2')",
    }
    keys.execute(f"update vault_keys set wrapped = {forged[how]} where subject = '1'")  # noqa: S608
    with pytest.raises(BrokenSeal, match="the key of '1' was changed, or is another one's"):
        Vault(keys, MASTER).open(ADA, sealed)


def test_rotation_wraps_what_is_left_and_leaves_the_old_master_key_useless(vault: Vault, keys: Connection) -> None:
    sealed, gone = vault.seal(ADA, "Ada"), ADA._replace(subject="2")
    gone_sealed = vault.seal(gone, "Grace")
    vault.forget("2")
    assert vault.rotate(OTHER) == 1
    assert (vault.open(ADA, sealed), vault.open(gone, gone_sealed)) == ("Ada", FORGOTTEN)
    with pytest.raises(WrongMasterKey):
        Vault(keys, MASTER).open(ADA, sealed)


def test_a_rotation_that_meets_a_broken_key_changes_none(vault: Vault, keys: Connection) -> None:
    sealed = vault.seal(ADA, "Ada")
    keys.execute("insert into vault_keys (subject, wrapped, master) select '2', wrapped, master from vault_keys")
    with pytest.raises(BrokenSeal, match="the key of '2'"):
        vault.rotate(OTHER)
    assert Vault(keys, MASTER).open(ADA, sealed) == "Ada"


def test_no_key_is_made_in_a_transaction_that_may_be_rolled_back(vault: Vault, keys: Connection) -> None:
    with keys.transaction(), pytest.raises(VaultError, match="give the vault its own connection"):
        vault.seal(ADA, "Ada")


def test_many_who_seal_for_one_person_at_once_share_one_key(schema: str, vault: Vault) -> None:
    def seal(number: int) -> str:
        with connect(schema) as own:
            return Vault(own, MASTER).seal(ADA, number)

    with ThreadPoolExecutor(4) as pool:
        assert [vault.open(ADA, sealed) for sealed in pool.map(seal, range(8))] == list(range(8))


def test_the_master_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    text = base64.b64encode(MASTER).decode()
    (tmp_path / "key").write_text(text + "\n")
    assert master_key({module.VARIABLE: text}) == MASTER
    assert master_key({module.FILE_VARIABLE: str(tmp_path / "key")}) == MASTER


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "there is no master key: set VAULT_MASTER_KEY_FILE or VAULT_MASTER_KEY"),
        ({"VAULT_MASTER_KEY": "secret!"}, "of VAULT_MASTER_KEY cannot be read"),
        ({"VAULT_MASTER_KEY": "c2VjcmV0"}, "of VAULT_MASTER_KEY has 6 bytes, not 32"),
        ({"VAULT_MASTER_KEY": ""}, "of VAULT_MASTER_KEY has 0 bytes, not 32"),
        ({"VAULT_MASTER_KEY_FILE": "nowhere/key"}, "of VAULT_MASTER_KEY_FILE cannot be read"),
    ],
)
def test_without_a_proper_master_key_there_is_no_vault(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        master_key(environment)


# Personal fields of events


@pytest.fixture
def sealing(store: PostgresStore, vault: Vault) -> SealingStore:
    return SealingStore(store, vault, SHOP)


@pytest.fixture
def customers(sealing: SealingStore) -> Repository[Customer]:
    """Customer 1, who is Ada and has spent 500."""
    repository = Repository(sealing, Customer, opening(sealing.vault, SHOP))
    commands: list[Callable[[Customer], None]] = [
        lambda customer: customer.register("Ada", "ada@example.org"),
        lambda customer: customer.move("Main Street 1"),
        lambda customer: customer.buy(500),
    ]
    for command in commands:
        repository.execute("1", command)
    return repository


def test_personal_fields_are_sealed_in_the_store_and_open_to_who_has_the_vault(customers: Repository[Customer]) -> None:
    stored = b"".join(event.data for event in customers.store.read("customer-1"))
    assert not any(text in stored for text in (b"Ada", b"ada@", b"Main Street"))
    assert customers.load("1").state() == {
        "name": "Ada",
        "email": "ada@example.org",
        "address": "Main Street 1",
        "spent": 500,
    }


def test_replay_works_for_who_was_forgotten_and_the_money_stays(
    customers: Repository[Customer], sealing: SealingStore
) -> None:
    sealing.vault.forget("1")
    customer = customers.load("1")
    assert (customer.name, customer.email, customer.address) == (FORGOTTEN,) * 3
    customers.execute("1", lambda customer: customer.buy(100))
    assert customers.load("1").spent == 600


def test_new_personal_data_of_who_was_forgotten_is_refused(
    customers: Repository[Customer], sealing: SealingStore
) -> None:
    sealing.vault.forget("1")
    with pytest.raises(SubjectForgotten):
        customers.execute("1", lambda customer: customer.move("Side Street 2"))
    assert customers.load("1").version == 3


def test_an_event_that_nobody_has_classified_is_refused(sealing: SealingStore) -> None:
    with pytest.raises(NotClassified, match="nobody has said what is personal in an event 'BirthdayNoted'"):
        sealing.append("customer-1", [NewEvent("BirthdayNoted", {"born": "1815-12-10"})])
    assert list(sealing.read("customer-1")) == []


def test_an_event_that_does_not_say_whose_data_it_has_is_refused(sealing: SealingStore) -> None:
    with pytest.raises(NotClassified, match="does not say in 'customer' whose data it is"):
        sealing.append("customer-1", [NewEvent("CustomerMoved", {"address": "Main Street 1"})])


def test_false_and_zero_are_personal_too_and_what_is_absent_is_not_sealed(vault: Vault) -> None:
    declared = {"Asked": Personal("customer", ("smokes", "children", "phone"))}
    event = NewEvent("Asked", {"customer": "1", "smokes": False, "children": 0})
    sealed = seal_fields(vault, declared, "customer-1", event)
    assert sealed.data.keys() == event.data.keys()
    assert all(str(sealed.data[name]).startswith(module.SEALED) for name in ("smokes", "children"))


def test_a_sealed_event_that_was_tampered_with_is_named(
    customers: Repository[Customer], connection: Connection
) -> None:
    """The e-mail where the name should be: both sealed for the same person, in the same stream."""
    [first] = customers.store.read("customer-1", limit=1)
    data = data_of(first)
    moved = first.data.replace(data["name"].encode(), data["email"].encode())
    connection.execute("update events set data = %s where version = 1", [moved])
    with pytest.raises(
        UnreadableEvent, match="event 1 of stream 'customer-1', type 'CustomerRegistered': field 'name'"
    ):
        customers.load("1")


def test_what_is_not_personal_is_stored_as_it_is(vault: Vault) -> None:
    event = NewEvent("Purchased", {"customer": "1", "cents": 5})
    assert not SHOP["Purchased"].fields
    assert seal_fields(vault, SHOP, "customer-1", event) is event


@pytest.mark.parametrize("more", [{"nickname": "Ada"}, {"e_mail": ""}, {"friend": {"name": "Ada"}}], ids=str)
def test_a_field_that_nobody_has_classified_is_refused_and_not_stored_in_the_clear(
    more: dict[str, Any], sealing: SealingStore
) -> None:
    event = NewEvent("CustomerMoved", {"customer": "1", "address": "Main Street 1", **more})
    with pytest.raises(NotClassified, match=f"nobody has said whether '{next(iter(more))}"):
        sealing.append("customer-1", [event])
    assert list(sealing.read("customer-1")) == []


def test_a_renamed_field_is_refused_until_it_is_classified(vault: Vault) -> None:
    event = NewEvent("CustomerRegistered", {"customer": "1", "full_name": "Ada", "email": "ada@example.org"})
    with pytest.raises(NotClassified, match="nobody has said whether 'full_name' in an event 'CustomerRegistered'"):
        seal_fields(vault, SHOP, "customer-1", event)
    declared = {"CustomerRegistered": Personal("customer", ("name", "full_name", "email"))}
    assert "Ada" not in str(seal_fields(vault, declared, "customer-1", event).data)


def test_fields_of_inner_objects_are_classified_by_their_names(vault: Vault) -> None:
    declared = {"OrderPlaced": plain("lines.product", "lines.quantity")}
    lines: list[dict[str, Any]] = [{"product": "tea", "quantity": 2}, {"product": "cup", "quantity": 1}]
    event = NewEvent("OrderPlaced", {"lines": lines})
    assert seal_fields(vault, declared, "order-1", event) is event
    lines[1]["engraving"] = "for Ada"
    with pytest.raises(NotClassified, match=r"whether 'lines\.engraving' in an event 'OrderPlaced' is personal"):
        seal_fields(vault, declared, "order-1", event)


def test_everything_that_the_shop_s_programs_write_is_classified(vault: Vault) -> None:
    written = [event for _, events in lives.orders(7, 50) for event in events]
    written += [event for _, events in sales(7, 12, 3) for event in events if event.type in SHOP]
    assert {event.type for event in written} >= {
        "OrderPlaced",
        "LineAdded",
        "LineRemoved",
        "OrderPaid",
        "OrderCancelled",
    }
    assert all(seal_fields(vault, SHOP, "order-1", event) is event for event in written)


@pytest.mark.parametrize("value", [math.nan, math.inf, ("a", "b"), {1: "x"}, "\ud83d", Decimal("1.5")], ids=repr)
def test_what_json_cannot_say_is_not_sealed_and_makes_no_key(value: Any, vault: Vault, keys: Connection) -> None:
    with pytest.raises(NotWritable, match="field 'name' of '1' in stream 'customer-1' cannot be sealed"):
        vault.seal(ADA, value)
    assert keys.execute("select from vault_keys").fetchall() == []


def test_a_seal_does_not_hide_how_deep_a_value_is(sealing: SealingStore) -> None:
    deep: Any = "Ada"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(UnwritableEvent, match="nested more than"):
        sealing.append("customer-1", [NewEvent("CustomerMoved", {"customer": "1", "address": deep})])
    sealing.append("customer-1", [NewEvent("CustomerMoved", {"customer": "1", "address": deep[0]})])
    [event] = sealing.read("customer-1")
    assert next(iter(opening(sealing.vault, SHOP)(event)))[1]["address"] == deep[0]


@pytest.mark.parametrize("customer", [None, 5, [], {}, "\0", "2"], ids=repr)
def test_a_sealed_event_of_nobody_is_named(
    customer: Any, customers: Repository[Customer], connection: Connection
) -> None:
    [first] = customers.store.read("customer-1", limit=1)
    foreign = codec.encode({**data_of(first), "customer": customer})
    connection.execute("update events set data = %s where version = 1", [foreign])
    with pytest.raises(UnreadableEvent, match="event 1 of stream 'customer-1', type 'CustomerRegistered'"):
        customers.load("1")


@pytest.mark.parametrize("sealed", [b"\xff", b"[" * 5_000, b"{", b""])
def test_what_is_sealed_and_no_json_is_a_broken_seal(sealed: bytes, vault: Vault) -> None:
    vault.seal(ADA, "a key")
    cipher = vault._cipher(ADA)
    assert cipher
    box = module.SEALED + base64.b64encode(module._encrypt(cipher, sealed, ADA)).decode()
    with pytest.raises(BrokenSeal, match="field 'name'"):
        vault.open(ADA, box)
