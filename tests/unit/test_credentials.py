"""The operator's key may appear, change and go at any time, and is never shown."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openairun_operator.kube import credentials
from openairun_operator.kube.credentials import OperatorKey

KEY = "sk-first-0123456789"
OTHER = "sk-second-0123456789"


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"{KEY}\r\n", f"  {KEY} \n\n", f"\t{KEY}"])
def test_white_space_around_a_key_is_dropped(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(text.encode())
    assert OperatorKey(file, None).current == KEY
    assert OperatorKey(None, text).current == KEY


@pytest.mark.parametrize("text", ["", "\n", "  \t"])
def test_an_empty_key_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    for key in (OperatorKey(file, None), OperatorKey(None, text)):
        assert (key.current, key.last, key.mark) == (None, None, None)


def test_without_a_file_or_a_variable_there_is_no_key() -> None:
    key = OperatorKey(None, None)
    assert key.current is None
    assert key.where == "OPENAI_API_KEY"
    assert key.remedy == "start it again with OPENAI_API_KEY set, or with --api-key-file"


def test_a_file_that_is_not_there_yet_is_no_reason_to_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = OperatorKey(tmp_path / "key", None)
    assert key.current is None
    assert str(tmp_path / "key") in key.where
    assert key.remedy == f"put it into {key.where}, or into the Secret mounted there. All goes on by itself then"
    assert caplog.records == []


def _directory(file: Path) -> None:
    file.mkdir()


def _bad_bytes(file: Path) -> None:
    file.write_bytes(b"sk-\xff\xfe")


def _loop(file: Path) -> None:
    file.symlink_to(file)


def _below_a_file(file: Path) -> None:
    file.parent.rmdir()
    file.parent.write_text("")


@pytest.mark.parametrize("spoil", [_directory, _bad_bytes, _loop, _below_a_file])
def test_what_cannot_be_read_is_no_key_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    file = tmp_path / "secret" / "key"
    file.parent.mkdir()
    spoil(file)
    assert OperatorKey(file, None).current is None
    assert str(file) in caplog.text


def test_the_mark_changes_with_the_key_and_does_not_tell_it() -> None:
    first, second, again = (OperatorKey(None, key).mark for key in (KEY, OTHER, KEY))
    assert first is not None
    assert first == again != second
    assert len(first) == 8
    assert first not in KEY


@pytest.mark.parametrize("key", ["sk-ключ", "sk-\udcff"])
def test_a_key_of_other_characters_has_a_mark_too(key: str) -> None:
    """It is refused where it would be sent, with a message; here it must not crash anything."""
    assert OperatorKey(None, key).mark


def test_a_key_does_not_show_in_a_repr() -> None:
    assert KEY not in repr(OperatorKey(None, KEY))


class Watched:
    """A key whose file is looked at as often as the loop turns."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.key = OperatorKey(file, None)
        self.changes = 0
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self.changes += 1
        self._changed.set()

    async def after(self, change: Callable[[], object]) -> str | None:
        """The key once the change was noticed."""
        self._changed.clear()
        change()
        async with asyncio.timeout(2):
            await self._changed.wait()
        return self.key.current

    async def looks(self) -> None:
        """Time enough for several looks."""
        for _ in range(10):
            await asyncio.sleep(0)


@asynccontextmanager
async def watching(file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(credentials, "_LOOK", 0.0)
    watched = Watched(file)
    task = asyncio.create_task(watched.key.watch(watched.changed))
    try:
        yield watched
    finally:
        assert not task.done()
        task.cancel()


async def test_a_key_appears_changes_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "key"
    async with watching(file, monkeypatch) as watched:
        assert await watched.after(lambda: file.write_text(f"{KEY}\n")) == KEY
        first = watched.key.mark
        file.write_text(KEY)  # the same key: nothing to tell
        await watched.looks()
        assert watched.changes == 1

        def replaced() -> None:  # as the kubelet does it: at once
            (tmp_path / "new").write_text(OTHER)
            (tmp_path / "new").rename(file)

        assert await watched.after(replaced) == OTHER
        assert watched.key.mark != first
        assert await watched.after(file.unlink) is None
        assert watched.key.last == OTHER  # runs that go can still be cancelled
        assert watched.key.mark is None
        assert watched.changes == 3
    assert "has changed" in caplog.text
    assert "has gone" in caplog.text
    assert KEY not in caplog.text
    assert OTHER not in caplog.text


async def test_a_file_that_stays_unreadable_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    async with watching(file, monkeypatch) as watched:

        def spoilt() -> None:
            file.unlink()
            file.mkdir()

        assert await watched.after(spoilt) is None
        await watched.looks()
        assert len([record for record in caplog.records if "Cannot read" in record.message]) == 1
        assert watched.key.last == KEY


async def test_without_a_file_there_is_nothing_to_watch() -> None:
    async with asyncio.timeout(2):
        await OperatorKey(None, KEY).watch(lambda: None)
