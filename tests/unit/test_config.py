"""Flags and environment give one Settings, or a refusal that says what to write."""

import argparse
import asyncio
import contextlib
import gc
import ssl
import sys
from asyncio import sslproto
from datetime import timedelta
from pathlib import Path

import pytest

from openairun_operator import __version__, assembly
from openairun_operator.__main__ import main
from openairun_operator.config import DEFAULT_BASE_URL, Settings, add_flags, settings

KEY = "sk-secret-0123456789"


def read(*flags: str, **environment: str) -> Settings:
    parser = argparse.ArgumentParser(prog="operator")
    add_flags(parser, environment)
    return settings(parser.parse_args(flags), environment)


def refusal(capsys: pytest.CaptureFixture[str], *flags: str, **environment: str) -> str:
    with pytest.raises(SystemExit) as raised:
        read(*flags, **environment)
    assert raised.value.code == 2
    return capsys.readouterr().err


def test_a_connection_and_garbage_take_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 256 connections to OpenAI, what asyncio has for TLS would be 64 MiB."""
    told: list[int] = []

    async def run(_: Settings) -> None:
        context = ssl.create_default_context()
        protocol = sslproto.SSLProtocol(asyncio.get_running_loop(), asyncio.Protocol(), context, None, False, "a")
        told.extend([len(protocol.get_buffer(-1)), gc.get_threshold()[0]])

    monkeypatch.setattr(assembly, "run", run)
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", sslproto.SSLProtocol.max_size)
    before, depth = gc.get_threshold(), sys.getrecursionlimit()
    try:
        main(["run"])
    finally:
        sys.setrecursionlimit(depth)
        gc.set_threshold(*before)
        gc.unfreeze()
    assert told == [32 * 1024, 2000]


def test_without_flags_and_environment_the_defaults_hold() -> None:
    told = read()
    assert told.base_url == DEFAULT_BASE_URL == "https://api.openai.com/v1"
    assert (told.namespaces, told.api_key_file, told.api_key) == ((), None, None)
    assert (told.organization, told.project, told.default_model) == (None, None, None)
    assert (told.request_timeout, told.orphan_limit) == (timedelta(seconds=30), timedelta(minutes=2))
    assert (told.log_format, told.verbose, told.liveness) == ("plain", False, None)
    assert told == Settings(holder=told.holder)


def test_the_environment_gives_what_the_flags_do_not() -> None:
    told = read(
        OPENAI_BASE_URL="https://models.example/v1/",
        OPENAI_API_KEY=KEY,
        OPENAI_ORG_ID="org-1",
        OPENAI_PROJECT_ID="proj_1",
        POD_NAME="operator-1",
    )
    assert told.base_url == "https://models.example/v1"
    assert (told.api_key, told.organization, told.project) == (KEY, "org-1", "proj_1")
    assert told.holder.startswith("operator-1/")


def test_flags_win_over_the_environment() -> None:
    flags = ["--base-url", "http://127.0.0.1:8080/v1", "--organization", "org-2", "--project", "proj_2"]
    told = read(*flags, OPENAI_BASE_URL="https://models.example/v1", OPENAI_ORG_ID="org-1", OPENAI_PROJECT_ID="proj_1")
    assert (told.base_url, told.organization, told.project) == ("http://127.0.0.1:8080/v1", "org-2", "proj_2")


def test_every_flag_is_heard() -> None:
    told = read(
        *("--namespace", "blue", "--namespace", "green", "--default-model", "gpt-5-mini"),
        *("--request-timeout", "10s", "--orphan-limit", "5m", "--log-format", "json", "--verbose"),
        *("--liveness", "http://0.0.0.0:8080/healthz"),
    )
    assert (told.namespaces, told.default_model) == (("blue", "green"), "gpt-5-mini")
    assert (told.request_timeout, told.orphan_limit) == (timedelta(seconds=10), timedelta(minutes=5))
    assert (told.log_format, told.verbose, told.liveness) == ("json", True, "http://0.0.0.0:8080/healthz")


def test_a_file_for_the_key_wins_over_the_variable() -> None:
    told = read("--api-key-file", "/run/secrets/key", OPENAI_API_KEY=KEY)
    assert (told.api_key_file, told.api_key) == (Path("/run/secrets/key"), None)


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "POD_NAME"])
def test_an_empty_variable_counts_as_absent(name: str) -> None:
    told = read(**{name: ""})
    assert told == Settings(holder=told.holder)
    assert not told.holder.startswith("/")


def test_white_space_around_a_variable_is_dropped() -> None:
    """A Secret's value often ends in a newline, and no header can carry one."""
    told = read(OPENAI_ORG_ID="org-1\n", OPENAI_PROJECT_ID=" proj_1 ", OPENAI_BASE_URL=" https://models.example/v1\n")
    assert (told.organization, told.project) == ("org-1", "proj_1")
    assert told.base_url == "https://models.example/v1"
    assert read("--organization", " ", OPENAI_PROJECT_ID="\n").project is None


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
@pytest.mark.parametrize("value", ["org\n1", "орг", "org\x7f"])
def test_what_no_header_can_carry_is_refused(capsys: pytest.CaptureFixture[str], name: str, value: str) -> None:
    assert "no HTTP header can carry" in refusal(capsys, **{name: value})


def test_two_operators_have_two_holders() -> None:
    assert read(POD_NAME="one").holder != read(POD_NAME="one").holder


def test_the_key_does_not_show_in_a_repr() -> None:
    told = read(OPENAI_API_KEY=KEY)
    assert KEY not in repr(told)
    assert KEY not in str(told)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("0.5", 0.5), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("90s", 90)],
)
def test_a_duration_is_seconds_or_as_kubernetes_writes_it(text: str, seconds: float) -> None:
    assert read("--request-timeout", text).request_timeout == timedelta(seconds=seconds)
    assert read("--orphan-limit", text).orphan_limit == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "10 m", "1.2.3", ".", "10ms", "-5", "1e3", "٣", "9" * 400])
def test_what_is_no_duration_is_refused(capsys: pytest.CaptureFixture[str], text: str) -> None:
    said = refusal(capsys, f"--request-timeout={text}")
    assert "argument --request-timeout" in said
    assert "write 30s, 10m or 1h30m" in said or "too long" in said


@pytest.mark.parametrize("text", ["0", "0s", "0.0"])
def test_no_time_at_all_is_refused(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert "must be more than 0s" in refusal(capsys, "--orphan-limit", text)


@pytest.mark.parametrize("address", ["api.openai.com/v1", "ftp://models.example", "https://", "http:///v1", "http://["])
def test_what_is_no_address_is_refused(capsys: pytest.CaptureFixture[str], address: str) -> None:
    for said in (refusal(capsys, "--base-url", address), refusal(capsys, OPENAI_BASE_URL=address)):
        assert "argument --base-url" in said
        assert DEFAULT_BASE_URL in said


@pytest.mark.parametrize("flag", ["--liveness", "--metrics"])
def test_an_https_address_to_serve_is_refused(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    said = refusal(capsys, f"{flag}=https://0.0.0.0:8443/x")
    assert f"argument {flag}" in said
    assert "served over http alone" in said


@pytest.mark.parametrize("name", ["", " ", "Blue", "a/b", "a*", "-a", "a" * 64])
def test_what_is_no_namespace_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "is no name of a namespace" in refusal(capsys, f"--namespace={name}")


@pytest.mark.parametrize("name", ["", "  ", "gpt-5\n", "gpt\x00"])
def test_what_is_no_model_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "argument --default-model: write the name of a model" in refusal(capsys, f"--default-model={name}")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--version", "version"):
        with contextlib.suppress(SystemExit):
            main([argument])
        assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("port", ["99999", "http", "-1"])
def test_an_address_with_an_impossible_port_is_refused(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert "argument --base-url" in refusal(capsys, "--base-url", f"http://models.example:{port}/v1")


@pytest.mark.parametrize(
    "address",
    ["https://me:word@models.example/v1", "https://:word@models.example/v1", "https://models.example/v1?key=word"],
)
def test_an_address_that_may_hold_a_secret_is_refused_without_repeating_it(
    capsys: pytest.CaptureFixture[str], address: str
) -> None:
    said = refusal(capsys, "--base-url", address)
    assert "is not supported" in said
    assert "word" not in said


def test_the_refused_log_format_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--log-format", "xml")
    assert "plain" in said
    assert "json" in said


def test_the_help_can_be_shown_whatever_the_environment_holds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        read("--help", OPENAI_BASE_URL="https://models.example/100%25/v1", OPENAI_API_KEY=KEY)
    assert raised.value.code == 0
    said = capsys.readouterr().out
    assert "--api-key-file" in said
    assert KEY not in said


# Where the operator's own key comes from


def test_a_workload_identity_is_two_ids_and_a_file() -> None:
    told = read("--workload-identity=idp_1/svcacct_1")
    assert told.workload_identity == ("idp_1", "svcacct_1")
    assert told.workload_token_file == Path("/var/run/secrets/openai/token")
    told = read("--workload-identity=idp_1/svcacct_1", "--workload-token-file=/token")
    assert told.workload_token_file == Path("/token")


@pytest.mark.parametrize("ids", ["", "idp_1", "idp_1/", "/svcacct_1", "a/b/c", "a b/c", "ä/b"])
def test_what_is_no_workload_identity_is_refused(capsys: pytest.CaptureFixture[str], ids: str) -> None:
    assert "write IDENTITY_PROVIDER_ID/SERVICE_ACCOUNT_ID" in refusal(capsys, f"--workload-identity={ids}")


AZURE = ("--base-url=https://mine.openai.azure.com/openai/v1", "--azure-api-version=v1")


@pytest.mark.parametrize(
    ("flags", "authentication"),
    [
        (AZURE, "APIKey"),
        ((*AZURE, "--azure-authentication=APIKey"), "APIKey"),
        ((*AZURE, "--azure-authentication=BearerToken", "--api-key-file=/token"), "BearerToken"),
        ((), None),
    ],
)
def test_azure_has_a_version_and_a_way_to_send_the_key(flags: tuple[str, ...], authentication: str | None) -> None:
    told = read(*flags)
    assert (told.azure_api_version, told.azure_authentication) == ("v1" if flags else None, authentication)


def test_what_is_no_version_of_azures_api_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no version" in refusal(capsys, "--azure-api-version=v1&x=y")


IDENTITY = "--workload-identity=idp_1/svcacct_1"


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        ([IDENTITY, "--api-key-file=/key"], {}, "--workload-identity and --api-key-file: write one of them"),
        ([IDENTITY], {"OPENAI_API_KEY": KEY}, "--workload-identity and OPENAI_API_KEY: unset the variable"),
        ([IDENTITY, *AZURE], {}, "not for Azure"),
        (["--workload-token-file=/token"], {}, "--workload-token-file needs --workload-identity"),
        (["--azure-authentication=APIKey"], {}, "--azure-authentication needs --azure-api-version"),
        (["--azure-api-version=v1"], {}, "--azure-api-version needs --base-url"),
        (
            [*AZURE, "--azure-authentication=BearerToken"],
            {"OPENAI_API_KEY": KEY},
            "BearerToken needs --api-key-file",
        ),
    ],
)
def test_there_is_one_source_of_a_key_or_a_refusal(
    capsys: pytest.CaptureFixture[str], flags: list[str], environment: dict[str, str], said: str
) -> None:
    told = refusal(capsys, *flags, **environment)
    assert said in told
    assert KEY not in told


def test_the_flags_of_the_operators_own_provider_are_heard() -> None:
    told = read(
        *("--own-provider-selector", "team=research, example.org/tier=,a.b/c_d=E.f-1"),
        *("--max-concurrent-runs", "7", "--requests-per-minute", "0", "--burst", "3"),
        *("--forbid-foreign-ids", "--no-own-provider"),
        *("--allow-address", "127.0.0.0/8", "--allow-address", "fd00::/8", "--allow-address=10.0.0.1"),
    )
    assert told.own_provider_selector == (("team", "research"), ("example.org/tier", ""), ("a.b/c_d", "E.f-1"))
    assert (told.max_concurrent_runs, told.requests_per_minute, told.burst) == (7, 0, 3)
    assert (told.forbid_foreign_ids, told.own_provider) == (True, False)
    assert [str(network) for network in told.allowed_addresses] == ["127.0.0.0/8", "fd00::/8", "10.0.0.1/32"]


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        *(("--own-provider-selector", text, "is no selector") for text in ("", "team", "a=b,", "=b", "a=b c", "-a=b")),
        *(
            (flag, text, "is no whole number")
            for flag in ("--max-concurrent-runs", "--burst")
            for text in ("0", "-1", "1.5", "", "many", "99999999", "٣")
        ),
        *(("--requests-per-minute", text, "is no whole number") for text in ("-1", "00", "1e3", "")),
        *(("--allow-address", text, "write a network") for text in ("", "here", "10.0.0.1/8", "127.0.0.0/33")),
    ],
)
def test_what_such_a_flag_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], flag: str, text: str, words: str
) -> None:
    said = refusal(capsys, f"{flag}={text}")
    assert f"argument {flag}" in said
    assert words in said
