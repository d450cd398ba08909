"""Where it is measured: one cluster for all, and for each operator a namespace, a stand-in, a watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import yaml
from apiserver import CRDS, DEPLOY, Cluster, own_cluster
from meters import children
from standin import Stats

from openairun_devkit.controlplane import HOW_TO_GET_BINARIES, ControlPlane, die_with_parent, kill_group
from openairun_devkit.kubectl import Kubectl, read_cluster

_BASELINE = Path(__file__).with_name("baseline.yaml")
_START = 20.0


class BenchError(Exception):
    """The bench cannot go on; the message says why."""


@dataclass(frozen=True)
class World:
    """The cluster, a session with an administrator's rights, and a folder for what the processes write."""

    cluster: Cluster
    session: aiohttp.ClientSession
    directory: Path
    pids: dict[str, int]
    """The cluster's processes, by name."""

    @property
    def server(self) -> str:
        return read_cluster(self.cluster.kubeconfig)[0]

    @property
    def kubectl(self) -> str:
        """The program: the one on the PATH, else that of the control plane."""
        plane = self.cluster.control_plane
        return shutil.which("kubectl") or str(plane.binaries.kubectl if plane else "kubectl")

    @property
    def counts(self) -> bool:
        """Whether the API server counts its requests: the stand-in does not."""
        return self.cluster.control_plane is not None

    @property
    def etcd(self) -> str | None:
        """Its version, where the API server has one."""
        if (plane := self.cluster.control_plane) is None:
            return None
        return etcd_version(subprocess.check_output([plane.binaries.etcd, "--version"], text=True, timeout=10))

    @property
    def where(self) -> str:
        return f"Kubernetes {self.cluster.version}" if self.counts else "the stand-in cluster, which counts no requests"


def etcd_version(said: str) -> str:
    """From what `etcd --version` says."""
    found = re.match(r"etcd Version: (\S+)", said)
    return found[1] if found else said.partition("\n")[0]


@contextlib.contextmanager
def some_cluster(which: str) -> Iterator[tuple[Cluster, dict[str, int]]]:
    """The cluster and its processes. `which`: `real`, `standin`, or `auto`: the real one where binaries are found."""
    binaries = None if which == "standin" else ControlPlane.find()
    if which == "real" and binaries is None:
        raise BenchError(f"etcd and kube-apiserver were not found: {HOW_TO_GET_BINARIES}")
    with own_cluster(binaries) if binaries else _standin_cluster() as cluster:
        cluster.kubectl.run("apply", f"--filename={_BASELINE}")
        cluster.kubectl.run("wait", "--for=condition=Established", "--timeout=30s", "crd/naiveruns.bench.openairun.dev")
        found = children(os.getpid())
        yield cluster, found if binaries else {"stand-in cluster": next(iter(found.values()))}


@contextlib.contextmanager
def _standin_cluster() -> Iterator[Cluster]:
    """The stand-in in a process of its own: what it costs must not be ours."""
    with started([sys.executable, "-m", "openairun_devkit.cluster"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        words = process.stdout.readline().decode().split()
        if words[:1] != ["export"]:
            raise BenchError("the stand-in cluster did not start; what it said is above")
        kubeconfig = Path(words[1].removeprefix("KUBECONFIG="))
        kubectl = Kubectl(kubeconfig)
        try:
            kubectl.run("apply", "--kustomize", str(DEPLOY / "crds"))
            kubectl.run("wait", "--for=condition=Established", "--timeout=30s", *CRDS)
            kubectl.run("apply", "--kustomize", str(DEPLOY / "manifests"))
            yield Cluster(kubectl, kubectl.json("version")["serverVersion"]["gitVersion"], "openairun-system")
        finally:
            shutil.rmtree(kubeconfig.parent, ignore_errors=True)  # it is killed, and cannot


@contextlib.contextmanager
def started(command: list[str], stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, or with us."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, process_group=0, preexec_fn=die_with_parent()
    )
    try:
        yield process
    finally:
        kill_group(process)


@contextlib.asynccontextmanager
async def session(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    """An administrator's session with the API server."""
    authority = read_cluster(cluster.kubeconfig)[1]
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    trust = ssl.create_default_context(cadata=authority.decode()) if authority else False
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"},
        connector=aiohttp.TCPConnector(ssl=trust),
        timeout=aiohttp.ClientTimeout(total=60),
        read_bufsize=2**20,
    ) as made:
        yield made


class OpenAI:
    """The stand-in's control side; `url` is what operators are given."""

    def __init__(self, session: aiohttp.ClientSession, port: int, pid: int) -> None:
        self._session = session
        self._control = f"http://127.0.0.1:{port}/_bench"
        self.url = f"http://127.0.0.1:{port}/v1"
        self.pid = pid

    async def stats(self) -> Stats:
        return cast(Stats, await self._ask("GET", "stats"))

    async def ends(self) -> dict[str, float]:
        """When runs finish, or have."""
        return cast(dict[str, float], await self._ask("GET", "ends"))

    async def lives(self, between: tuple[float, float] | None) -> None:
        """How long new runs last, in seconds; None: for ever."""
        await self._ask("POST", "lives", between)

    async def finish(self, over: float) -> int:
        """Let all that go finish, evenly spread over so many seconds; the answer is how many they are."""
        return cast(int, await self._ask("POST", "finish", over))

    async def mark(self) -> None:
        """Count from now on who is polled."""
        await self._ask("POST", "mark")

    async def _ask(self, method: str, what: str, body: Any = None) -> Any:
        async with self._session.request(method, f"{self._control}/{what}", data=json.dumps(body)) as answer:
            return await answer.json()


@contextlib.asynccontextmanager
async def openai(directory: Path) -> AsyncIterator[OpenAI]:
    """A stand-in in a process of its own."""
    port_file = directory / "port"
    program = str(Path(__file__).with_name("standin.py"))
    with started([sys.executable, program, f"--port-file={port_file}"]) as process:
        async with asyncio.timeout(_START):
            while not port_file.exists():
                if process.poll() is not None:
                    raise BenchError("the stand-in for OpenAI did not start; what it said is above")
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as asking:
            yield OpenAI(asking, int(port_file.read_text()), process.pid)
