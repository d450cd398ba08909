"""What is kept of a resource takes little room, and loses nothing."""

from __future__ import annotations

import sys

from reconciling import Body, World

from openairun_operator.lifecycle.run import parse
from openairun_operator.store import Entry, Parsed, Store


def one(number: int, version: int = 100) -> Body:
    metadata = {"name": f"run-{number}", "namespace": "team", "uid": f"uid-{number}", "generation": 1}
    spec = {"model": "m", "input": "x"}
    return {"metadata": {**metadata, "resourceVersion": str(version)}, "spec": spec, "status": {}}


def is_parsed(entry: Entry) -> bool:
    return entry._run is not None


def test_of_thousands_that_come_at_once_a_few_hundred_are_kept_parsed() -> None:
    store = Store()
    bodies = [one(number) for number in range(3_000)]
    for each in bodies:
        entry = store.read(each)
        store.keep(entry.uid, entry)
    entries = [entry for _, entry in store]
    assert sum(map(is_parsed, entries)) == 500
    assert all(map(is_parsed, entries[-500:]))
    assert entries[0].run == parse(bodies[0])
    assert is_parsed(entries[0])
    assert not is_parsed(entries[-500])


def test_a_new_version_is_parsed_last() -> None:
    entries: dict[str, Entry] = {}
    parsed = Parsed(entries.get, 2)
    first, second = (Entry.of(one(number), parsed) for number in range(2))
    entries |= {"uid-0": first, "uid-1": second}
    first.take(one(0, version=500))
    Entry.of(one(2), parsed)
    assert is_parsed(first)
    assert not is_parsed(second)
    assert first.version.number == 500


async def test_what_is_known_of_a_run_without_an_object_outlasts_that_it_is_folded() -> None:
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    entry, record = world.entry, world.entry.run.record
    assert record
    entry.vanished = True
    entry.note(record.model_copy(update={"token": "another"}))
    noted = entry.run
    entry.fold()
    assert not is_parsed(entry)
    assert entry.run == noted
    assert entry.run.record != record


def test_nobody_is_kept_because_it_was_parsed() -> None:
    """Not even whom a step parses that was under way when the deletion came."""
    store = Store()
    entry = store.read(one(1))
    store.keep(entry.uid, entry)
    store.forget(entry.uid)
    entry.take(one(1, version=500))
    assert sys.getrefcount(entry) == 2, "more than this test and the one that counts"


def test_who_went_is_not_among_the_parsed() -> None:
    store = Store()
    for number in range(3):
        entry = store.read(one(number))
        store.keep(entry.uid, entry)
    for (uid, entry), go in zip(store, (store.rest, store.leave, lambda uid, _: store.forget(uid)), strict=True):
        go(uid, entry)
    assert not store._parsed._uids
