"""``make demo``: the operator at work, on stand-ins for Kubernetes and for OpenAI. Nothing else is needed.

It ends with 0 if all went as it must, else with 1 and the reason. Nothing is left running, after Ctrl-C neither.
With `--keep` it goes on until Ctrl-C, for a second terminal.
"""

import argparse
import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from openairun_devkit.controlplane import die_with_parent, kill_group

ROOT = Path(__file__).parents[2]
SAMPLES = ("run.yaml", "assistant-run.yaml", "terraform-run.yaml", "demo/fails.yaml", "demo/long.yaml")
EXPECTED = {
    "hello": "Completed",
    "hello-assistant": "Completed",
    "sales": "Completed",
    "fails": "Failed",
    "long": "InProgress",
}
RUNS = "/apis/openairun.dev/v1alpha1/namespaces/default/openairuns"
_TIMEOUT = 30.0  # seconds, for each thing that is waited for


class DemoError(Exception):
    """Something is not as it must be."""


def say(text: str = "") -> None:
    print(text, flush=True)


def ask(url: str, method: str, path: str, body: Any = None, accept: str = "application/json") -> Any:
    """One request in JSON. DemoError for what is refused."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_TIMEOUT)
    with contextlib.closing(connection):
        headers = {"Accept": accept, "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status >= 400:
        raise DemoError(f"{method} {path} was answered with {answer.status}: {text}")
    return json.loads(text)


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not done():
        if time.monotonic() > deadline:
            raise DemoError(f"waited {_TIMEOUT:g} s for {what}, in vain")
        time.sleep(0.1)


class Client(Protocol):
    """How a person would talk to the cluster: each step is shown, and what came of it."""

    def apply_crds(self) -> None: ...
    def apply(self, samples: Sequence[str]) -> None: ...
    def watch(self, done: Callable[[], bool], what: str) -> None: ...
    def get(self) -> None: ...
    def answer(self, name: str) -> None: ...
    def delete(self, name: str) -> None: ...
    def events(self) -> None: ...


class WithKubectl:
    """With the kubectl that is on the PATH."""

    def __init__(self, kubeconfig: Path) -> None:
        # A variable must not point kubectl at another cluster or change what it prints.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("KUBECTL_")}
        self._environment = ours | {"KUBECONFIG": str(kubeconfig)}

    def _run(self, *args: str) -> None:
        command = ("kubectl", *args)
        say(f"\n$ {shlex.join(command)}")
        if (code := subprocess.call(command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL)) != 0:
            raise DemoError(f"{shlex.join(command)} ended with {code}")

    def apply_crds(self) -> None:
        self._run("apply", "-k", "deploy/crds")

    def apply(self, samples: Sequence[str]) -> None:
        self._run("apply", *(part for sample in samples for part in ("-f", f"deploy/samples/{sample}")))

    def watch(self, done: Callable[[], bool], what: str) -> None:
        command = ("kubectl", "get", "openairuns", "--watch")
        say(f"\n$ {shlex.join(command)}")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=die_with_parent(),
        )
        try:
            wait_until(done, what)
            time.sleep(0.5)  # so that it can show the last change
        finally:
            kill_group(process)

    def get(self) -> None:
        self._run("get", "openairuns", "-o", "wide")

    def answer(self, name: str) -> None:
        self._run("get", "openairun", name, "-o", r'jsonpath={.status.output.text}{"\n"}')

    def delete(self, name: str) -> None:
        self._run("delete", "openairun", name, f"--timeout={_TIMEOUT:g}s")

    def events(self) -> None:
        self._run("get", "events")


class WithoutKubectl:
    """By HTTP, showing the tables that the server makes for kubectl."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _table(self, path: str, *, wide: bool = False) -> list[str]:
        table = ask(self._url, "GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        shown = [n for n, column in enumerate(table["columnDefinitions"]) if wide or not column["priority"]]
        head = [table["columnDefinitions"][n]["name"].upper() for n in shown]
        rows = [["" if row["cells"][n] is None else str(row["cells"][n]) for n in shown] for row in table["rows"]]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ("   ".join(map(str.ljust, row, widths)).rstrip() for row in [head, *rows])
        return list(lines)

    def apply_crds(self) -> None:
        for file in sorted((ROOT / "deploy/crds").glob("openairun*.yaml")):
            body = yaml.safe_load(file.read_text())
            ask(self._url, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
            say(f"\ncreated {body['metadata']['name']}")

    def apply(self, samples: Sequence[str]) -> None:
        for sample in samples:
            body = yaml.safe_load((ROOT / "deploy/samples" / sample).read_text())
            ask(self._url, "POST", RUNS, body)
            say(f"created openairun {body['metadata']['name']}")

    def watch(self, done: Callable[[], bool], what: str) -> None:
        say("\nopenairuns as they change, as the server shows them:")
        shown: set[str] = set()

        def changed() -> bool:
            for line in self._table(RUNS):
                known = line.rpartition("   ")[0].rstrip()  # without the age
                if known not in shown:
                    shown.add(known)
                    say(line)
            return done()

        wait_until(changed, what)

    def get(self) -> None:
        say("\nopenairuns, as the server shows them:")
        say("\n".join(self._table(RUNS, wide=True)))

    def answer(self, name: str) -> None:
        say(f"\nthe answer of {name}:")
        say(ask(self._url, "GET", f"{RUNS}/{name}")["status"]["output"]["text"])

    def delete(self, name: str) -> None:
        ask(self._url, "DELETE", f"{RUNS}/{name}")
        items = f"{RUNS}?fieldSelector=metadata.name={name}"
        wait_until(lambda: not ask(self._url, "GET", items)["items"], f"{name} to be gone")
        say(f"\ndeleted openairun {name}")

    def events(self) -> None:
        say("\nevents, as the server shows them:")
        say("\n".join(self._table("/api/v1/namespaces/default/events")))


def _inherited(*names: str) -> dict[str, str]:
    """These variables of our environment: where programs and this very code are found."""
    return {name: os.environ[name] for name in names if name in os.environ}


@contextlib.contextmanager
def started(log: Path, *command: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program of ours that ends with the block; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=log.parent,
            env={**_inherited("PATH", "PYTHONPATH"), "HOME": str(log.parent), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C must reach us only: we decide when they end.
            process_group=0,
            preexec_fn=die_with_parent(),
        )
    try:
        yield process
    finally:
        kill_group(process)


def run(directory: Path, *, keep: bool) -> None:
    """The whole show. What the programs write goes into `directory`."""
    from openairun_devkit.cluster import StandInCluster  # slow to load: by now Ctrl-C is no traceback

    log, port_file = directory / "operator.log", directory / "port"
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(StandInCluster())
        openai = stack.enter_context(
            started(directory / "openai.log", "openairun_devkit.openai", "--port-file", str(port_file))
        )
        wait_until(lambda: port_file.exists() or openai.poll() is not None, "the stand-in for OpenAI")
        if openai.poll() is not None:
            raise DemoError(f"the stand-in for OpenAI ended:\n{(directory / 'openai.log').read_text()}")
        openai_url = f"http://127.0.0.1:{port_file.read_text()}"
        client: Client = (
            WithKubectl(cluster.kubeconfig) if shutil.which("kubectl") is not None else WithoutKubectl(cluster.url)
        )
        say(f"A stand-in for Kubernetes is on {cluster.url}, one for OpenAI on {openai_url}.")
        client.apply_crds()
        environment = {"KUBECONFIG": str(cluster.kubeconfig), "OPENAI_API_KEY": "sk-standin"}
        command = ("openairun_operator", "run", f"--base-url={openai_url}/v1")
        operator = stack.enter_context(started(log, *command, env=environment))
        say("\nThe operator runs: openairun-operator run --base-url=" + f"{openai_url}/v1")
        try:
            wait_until(
                lambda: "watching openairuns" in log.read_text() or operator.poll() is not None, "the operator to watch"
            )
            show(client, cluster.url, openai_url)
        except DemoError as error:
            raise DemoError(f"{error}\nThe end of the operator's log:\n{log.read_text()[-3000:]}") from error
        if keep:
            say(f"\nThe operator's log: {log}")
            say("All goes on until Ctrl-C. In another terminal:")
            say(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
            operator.wait()
            raise DemoError(f"the operator ended:\n{log.read_text()[-3000:]}")


def show(client: Client, cluster_url: str, openai_url: str) -> None:
    """Apply the samples and see what becomes of them."""

    def phases() -> dict[str, str]:
        found = ask(cluster_url, "GET", RUNS)["items"]
        return {each["metadata"]["name"]: each.get("status", {}).get("phase", "") for each in found}

    client.apply(SAMPLES)
    client.watch(lambda: phases() == EXPECTED, f"the runs to be {EXPECTED}")
    client.get()
    client.answer("hello")
    run_id = ask(cluster_url, "GET", f"{RUNS}/long")["status"]["runID"]
    client.delete("long")

    def told() -> bool:
        events = ask(cluster_url, "GET", "/api/v1/namespaces/default/events")["items"]
        return any(e["reason"] == "Cancelled" and e["involvedObject"]["name"] == "long" for e in events)

    wait_until(told, "the event Cancelled of the deleted run")
    client.events()
    (at_openai,) = (each for each in ask(openai_url, "GET", "/_standin/runs") if each["id"] == run_id)
    if (at_openai["status"], at_openai["cancel_calls"]) != ("cancelled", 1):
        raise DemoError(
            f"the deleted run is {at_openai['status']} at OpenAI, cancelled {at_openai['cancel_calls']} times"
        )
    say(f"\nAt OpenAI the run of the deleted resource, {run_id}, is {at_openai['status']}.")
    say("All went as it must.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make demo", description="Show the operator at work, on stand-ins.")
    parser.add_argument("--keep", action="store_true", help="go on until Ctrl-C")
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background job would ignore the latter
        signal.signal(number, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="openairun-demo-"))
    try:
        run(directory, keep=arguments.keep)
    except DemoError as error:
        raise SystemExit(f"The demo failed: {error}") from None
    except KeyboardInterrupt:
        say("\nStopped.")
        # Who asked it to go on ends it that way; else the show was not over.
        raise SystemExit(0 if arguments.keep else 130) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
