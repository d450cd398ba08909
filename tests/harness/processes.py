"""The programs that a test starts: OpenAI stand-ins, and operators under the manifests' ServiceAccount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from apiserver import Cluster
from fork_server import KUBECONFIG, Forked, start
from openai_control import OpenAIControl
from operator_process import OperatorProcess
from waiting import wait_until

from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.controlplane import kill_group
from openairun_devkit.kubectl import read_cluster, write_kubeconfig


class Processes:
    """Starts them in folders below `directory`, and ends them all. `logs` names what they wrote."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.logs: list[tuple[str, Path]] = []
        self._cluster = cluster
        self._directory = directory
        self._openai: list[subprocess.Popen[bytes] | Forked] = []
        self._operators: list[OperatorProcess] = []

    def start_openai(self, *args: str) -> OpenAIControl:
        """An OpenAI stand-in, with flags of its own."""
        directory = self._folder("openai", len(self._openai))
        log, port_file = directory / "openai.log", directory / "port"
        process = start("openairun_devkit.openai", [f"--port-file={port_file}", *args], directory, os.environ, log)
        self._openai.append(process)
        self.logs.append((f"OpenAI stand-in {len(self._openai)}", log))
        wait_until(lambda: port_file.exists() or process.poll() is not None, 20, "the OpenAI stand-in")
        assert process.poll() is None, f"the OpenAI stand-in did not start:\n{log.read_text()}"
        return OpenAIControl(int(port_file.read_text()))

    def start_operator(
        self,
        namespace: str | None,
        *,
        base_url: str,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        key: str | None = "sk-standin",
        through_proxy: ApiProxy | None = None,
    ) -> OperatorProcess:
        """An operator for one namespace (None: for all). `key` None: the key's file does not exist."""
        directory = self._folder("operator", len(self._operators))
        cluster, kubeconfig = self._cluster, directory / KUBECONFIG
        if through_proxy is not None:
            through_proxy.write_kubeconfig(kubeconfig, cluster.operator_token)
        else:
            server, authority = read_cluster(cluster.kubeconfig)
            write_kubeconfig(kubeconfig, server=server, token=cluster.operator_token, certificate_authority=authority)
        key_file = directory / "credentials/api-key"
        key_file.parent.mkdir()
        if key is not None:
            key_file.write_text(key)
        # No limit of requests: it would slow tests down. Who is to be limited says so.
        args = [f"--api-key-file={key_file}", f"--base-url={base_url}", "--requests-per-minute=0", *extra_args]
        if namespace is not None:
            args.insert(0, f"--namespace={namespace}")
        process = OperatorProcess(directory, args, env or {}, key_file)
        self._operators.append(process)
        self.logs.append((f"operator {len(self._operators)}", process.log_file))
        return process

    def end(self) -> None:
        """End all; an operator that ended by itself must have left no child."""
        orphaned = [process.pid for process in self._operators if not process.running and process.survivors()]
        for operator in self._operators:
            operator.kill9()
            wait_until(lambda o=operator: not o.survivors(), 5, f"the end of process group {operator.pid}")
        for process in self._openai:
            kill_group(process)
        assert not orphaned, f"these operators ended and left children behind: {orphaned}"

    def _folder(self, kind: str, number: int) -> Path:
        directory = self._directory / f"{kind}-{number}"
        directory.mkdir()
        return directory


class StartOpenAI(Protocol):
    def __call__(self, *args: str) -> OpenAIControl: ...


class StartOperator(Protocol):
    def __call__(
        self,
        namespace: str | None,
        *,
        base_url: str | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        key: str | None = "sk-standin",
        through_proxy: ApiProxy | None = None,
    ) -> OperatorProcess: ...
