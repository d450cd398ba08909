"""A namespace's provider cannot lead the operator to what is internal to its node or the cloud, however written."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import pytest

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.lifecycle.observation import CreateRequest, RunRef
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.guard import AddressRefusedError, Guard

KEY = "team-key-0123456789"
REQUEST = CreateRequest(OpenAIRunSpec(input="Hello", model="gpt-standin"))
REF = RunRef("Responses", "resp_1")
LOOPBACK = (ip_network("127.0.0.1/32"),)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(keys=[KEY]) as server:
        yield server


@pytest.fixture
async def allowing() -> AsyncIterator[Clients]:
    clients = Clients(5, allowed=LOOPBACK)
    yield clients
    await clients.close()


class Names:
    """Stands in for name resolution: each name has its answers in turn, the last one for ever."""

    def __init__(self) -> None:
        self.known: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        answers = self.known[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


def at(host: str, port: int = 9) -> Credentials:
    return Credentials(f"http://{host}:{port}/v1", KEY, guarded=True)


async def failure(clients: Clients, credentials: Credentials) -> Failure:
    with pytest.raises(CallFailedError) as raised:
        await wire("Responses", clients, credentials).create(REQUEST)
    return raised.value.failure


# Which addresses

REFUSED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%1",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::169.254.169.254",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, of 127.0.0.1
]
FREE = [
    "1.1.1.1",
    "10.0.0.1",
    "10.96.0.1",
    "100.64.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "fd12:3456::1",
    "64:ff9b::1.1.1.1",
    "::ffff:10.0.0.1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_internal_is_refused(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="internal to the node or the cloud"):
        Guard().check(address, "server.test")


@pytest.mark.parametrize("address", FREE)
def test_all_else_is_free_private_networks_too(address: str) -> None:
    Guard().check(address, "server.test")


@pytest.mark.parametrize(
    ("network", "address", "free"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.1/32", "127.0.0.2", False),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "::1", False),
        ("::1/128", "::1", True),
        ("64:ff9b::/96", "64:ff9b::169.254.169.254", True),
        ("127.0.0.0/8", "64:ff9b::169.254.169.254", False),
        # A Teredo server that is allowed is no leave for the client behind it.
        ("127.0.0.0/8", "2001:0:7f00:1:8000:63bf:5601:5601", False),
        ("0.0.0.0/0", "169.254.169.254", True),
    ],
)
def test_the_administrator_can_allow_networks(network: str, address: str, free: bool) -> None:
    guard = Guard((ip_network(network),))
    if free:
        guard.check(address, "server.test")
    else:
        with pytest.raises(AddressRefusedError):
            guard.check(address, "server.test")


# In the URL

PLAIN = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "017700000001",
    "0x7f.1",
    "0x7f000001",
    "0X7F.0.0.1",
    "127.0.0.1.",
    "127.1.",
    "0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[fe80::1%25lo]",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "localhost",
    "LOCALHOST",
]
ODD = [
    "localhost.",
    "127。0。0。1",
    "127.0.0.1\uff0e",
]


@pytest.mark.parametrize("host", PLAIN + ODD)
async def test_no_way_of_writing_an_address_gets_around_the_guard(
    server: OpenAIStandIn, clients: Clients, host: str
) -> None:
    failed = await failure(clients, at(host, server.port))
    # What the odd ones are depends on the machine's resolver, and on how what is not ASCII is mapped.
    reasons = {Reason.ADDRESS_REFUSED} if host in PLAIN else {Reason.ADDRESS_REFUSED, Reason.UNREACHABLE}
    assert failed.reason in reasons
    assert failed.outcome is Outcome.NOT_CREATED
    assert not server.requests()


@pytest.mark.parametrize("host", ["0177.0.0.1", "①②⑦.0.0.1"])
async def test_some_ways_of_writing_it_make_no_url(clients: Clients, host: str) -> None:
    with pytest.raises(ValueError, match="the address is no URL"):
        wire("Responses", clients, at(host))


async def test_the_failure_says_which_address_why_and_who_can_allow_it(clients: Clients) -> None:
    failed = await failure(clients, at("127.1"))
    assert failed == Failure(
        reason=Reason.ADDRESS_REFUSED,
        message=(
            "A namespace's provider may not be at 127.1, which is 127.0.0.1: that address is internal to the node or"
            " the cloud. Give it another, or let the operator's administrator allow this one with --allow-address"
        ),
        outcome=Outcome.NOT_CREATED,
    )


async def test_a_look_fails_so_too(clients: Clients) -> None:
    with pytest.raises(CallFailedError) as raised:
        await wire("Responses", clients, at("169.254.169.254", 80)).observe(REF)
    assert raised.value.failure.reason is Reason.ADDRESS_REFUSED


async def test_the_operators_own_address_is_not_guarded(server: OpenAIStandIn, clients: Clients) -> None:
    await wire("Responses", clients, Credentials(server.url, KEY)).create(REQUEST)


async def test_what_the_administrator_allows_is_reached(server: OpenAIStandIn, allowing: Clients) -> None:
    await wire("Responses", allowing, at("127.0.0.1", server.port)).create(REQUEST)
    assert (await failure(allowing, at("127.0.0.2", server.port))).reason is Reason.ADDRESS_REFUSED


async def test_a_connection_of_the_operators_own_is_not_used_by_a_namespace(
    server: OpenAIStandIn, clients: Clients
) -> None:
    await wire("Responses", clients, Credentials(server.url, KEY)).create(REQUEST)
    assert (await failure(clients, at("127.0.0.1", server.port))).reason is Reason.ADDRESS_REFUSED
    assert len(server.requests()) == 1


# Names


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["10.0.0.1", "::1"], ["fd00:ec2::254"]])
async def test_a_name_is_refused_if_one_of_its_addresses_is(
    names: Names, clients: Clients, addresses: list[str]
) -> None:
    names.known["server.test"] = [addresses]
    failed = await failure(clients, at("server.test"))
    assert (failed.reason, failed.outcome) == (Reason.ADDRESS_REFUSED, Outcome.NOT_CREATED)
    assert f"server.test, which is {addresses[-1]}: that" in failed.message


async def test_the_connection_goes_to_the_address_that_was_checked(
    names: Names, server: OpenAIStandIn, allowing: Clients
) -> None:
    names.known["server.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    await wire("Responses", allowing, at("server.test", server.port)).create(REQUEST)
    assert names.asked == ["server.test"]
    assert len(server.requests()) == 1


async def test_a_name_that_is_given_another_address_later_is_checked_anew(
    names: Names, server: OpenAIStandIn, allowing: Clients
) -> None:
    names.known["server.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    await wire("Responses", allowing, at("server.test", server.port)).create(REQUEST)
    names.known["server.test"] = [["169.254.169.254"]]
    (pool,) = allowing._pools.values()
    await pool.retire()  # its connections, and the names it knows
    assert (await failure(allowing, at("server.test", server.port))).reason is Reason.ADDRESS_REFUSED
    assert len(server.requests()) == 1


async def test_all_who_wait_for_one_name_are_told(names: Names, clients: Clients) -> None:
    names.known["server.test"] = [["127.0.0.1"]]
    told = await asyncio.gather(*(failure(clients, at("server.test")) for _ in range(5)))
    assert {failed.reason for failed in told} == {Reason.ADDRESS_REFUSED}


async def test_a_name_that_does_not_exist_is_no_refusal(clients: Clients) -> None:
    assert (await failure(clients, at("no-such-host.invalid"))).reason is Reason.UNREACHABLE


async def test_what_is_connected_to_is_checked_however_it_was_found(
    names: Names, server: OpenAIStandIn, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line: it holds if the URL's host or the names are understood otherwise by what connects."""
    monkeypatch.setattr(Guard, "check_host", lambda *_: None)
    monkeypatch.setattr("openairun_operator.wires.clients.GuardedResolver", lambda _: None)
    assert (await failure(clients, at("127.0.0.1", server.port))).reason is Reason.ADDRESS_REFUSED
    assert not server.requests()


# Ways around


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_no_proxy_carries_a_namespaces_request(
    server: OpenAIStandIn, clients: Clients, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{server.port}")
    assert (await failure(clients, at("no-such-host.invalid"))).reason is Reason.UNREACHABLE
    assert (await failure(clients, at("169.254.169.254", 80))).reason is Reason.ADDRESS_REFUSED
    assert not server.requests()


async def test_a_proxy_carries_the_operators_own(
    server: OpenAIStandIn, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    await wire("Responses", clients, Credentials("http://no-such-host.invalid/v1", KEY)).create(REQUEST)
    assert len(server.requests()) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("guarded", [False, True])
async def test_no_redirect_carries_a_key_to_another_host(
    server: OpenAIStandIn, allowing: Clients, status: int, guarded: bool
) -> None:
    async with OpenAIStandIn(keys=[KEY]) as other:
        server.add_fault("* .", times=None, status=status, headers={"Location": f"{other.url}/responses"})
        failed = await failure(allowing, Credentials(server.url, KEY, guarded=guarded))
        assert (failed.reason, failed.outcome) == (Reason.API_NOT_SERVED, Outcome.NOT_CREATED)
        with pytest.raises(CallFailedError):
            await wire("Responses", allowing, Credentials(server.url, KEY, guarded=guarded)).observe(REF)
        assert not other.requests()
