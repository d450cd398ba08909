"""Texts from outside: no key, no control character, no excess."""

import time

import pytest

from openairun_operator.lifecycle import text

BODY = "abcDEF123456_-abcDEF7890"


@pytest.mark.parametrize(
    "key",
    [
        f"sk-{BODY}",
        f"sk-proj-{BODY}",
        f"sk-svcacct-{BODY}",
        f"sk-admin-{BODY}",
        f"sess-{BODY}",
        f"ek-{BODY}",
        "sk-ab***************yz12",
        "sk-ab…yz12",
    ],
)
@pytest.mark.parametrize(
    "around",
    [
        "Incorrect API key provided: {}. You can find yours at …",
        "Authorization: Bearer {}",
        '{{"key": "{}"}}',
        "key={}&a=b",
        "https://user:{}@proxy.example",
        "b'{}\\n'",
        "({})",
        "{}",
    ],
)
def test_what_looks_like_a_key_is_never_shown(key: str, around: str) -> None:
    for said in (text.redact(around.format(key)), text.message(around.format(key))):
        assert key not in said
        assert BODY not in said
        assert text.REDACTED in said


@pytest.mark.parametrize(
    "header",
    ["Bearer eyJhbGciOi.J9.abc-def", "bearer  abcdef", "Basic dXNlcjpwYXNz", "api-key: 0123456789abcdef"],
)
def test_what_stands_behind_an_authorization_scheme_is_never_shown(header: str) -> None:
    said = text.redact(f"illegal header value '{header}'")
    assert header.split()[-1] not in said


@pytest.mark.parametrize("secret", ["0123456789abcdef0123456789abcdef", "a.b*c[d]", "clé-secrète", "x" * 84])
def test_the_key_itself_is_never_shown_whatever_its_shape(secret: str) -> None:
    assert secret not in text.message(f"cannot use {secret}: {secret!r}, {secret}x", secret)


@pytest.mark.parametrize("control", ["\x00", "\x1b", "\x07", "\u202e", "\ud800"])
def test_a_control_character_in_a_key_does_not_hide_it(control: str) -> None:
    said = text.message(
        f"your key sk-{control}proj-{BODY} and sk-pr{control}oj-{BODY} and 0123{control}4567", "01234567"
    )
    assert BODY not in said
    assert "01234567" not in said


@pytest.mark.parametrize(
    "plain", ["a risk-averse task-force", "ask-me", "basics", "the API key is wrong", "desk-lamp-12"]
)
def test_plain_words_stay(plain: str) -> None:
    assert text.message(plain) == plain


def test_short_secrets_do_not_tear_a_text_apart() -> None:
    assert text.redact("a banana", "a", "", "an") == "a banana"


@pytest.mark.parametrize("space", ["\n", "  ", "\r\n\t", "\u2028"])
def test_a_line_end_in_a_key_does_not_hide_it(space: str) -> None:
    """A message is one line: the key would be whole again in it."""
    for secret in ("team key 0123", "team  key 0123"):
        assert "0123" not in text.message(f"no: team{space}key 0123", secret)
        assert "0123" not in text.message(text.without(f"no: team{space}key 0123", text.forms(secret)))


def test_control_characters_go_and_lines_stay() -> None:
    assert text.clean("a\x00b\x1b[31mc\x7f\x9fd\u202ee\u2066\u061cf\ud800g") == "ab[31mcdefg"
    assert text.clean("a\r\nb\rc\td\n") == "a\nb\nc\td\n"


def test_a_message_is_one_bounded_line() -> None:
    assert text.message("  a\n\n b\t\r\nc  ") == "a b c"
    long = text.message("ä" * 5000)
    assert len(long) == 1024
    assert long.endswith("…")
    assert len(text.message("ä" * 1024)) == 1024


@pytest.mark.parametrize("char", ["a", "ä", "€", "😀"])
@pytest.mark.parametrize("limit", range(0, 13))
def test_a_cut_is_the_longest_beginning_that_fits(char: str, limit: int) -> None:
    whole = char * 12
    cut = text.cut_bytes(whole, limit)
    assert whole.startswith(cut)
    assert len(cut) == min(12, limit // len(char.encode()))


def test_a_brief_message_keeps_the_request_id() -> None:
    long = "x" * 400
    assert text.brief("short (request id r)", 300) == "short (request id r)"
    assert text.brief(f"{long} (request id req_1)", 300) == "x" * 280 + "… (request id req_1)"
    assert text.brief(long, 300) == "x" * 299 + "…"
    assert len(text.brief(f"{long} (request id {long})", 300)) == 300


def test_a_text_that_is_made_for_it_takes_no_time_without_end() -> None:
    """A namespace's user chooses both the key and, by way of the server, the text."""
    for key, said in (("\\" * 4096, "\\" * 2**20), ("a" * 4096, ("a" * 4095 + "b") * 256), ('"' * 4096, '"' * 2**20)):
        began = time.monotonic()
        text.redact(said, key)
        assert time.monotonic() - began < 5
