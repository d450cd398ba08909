"""kubectl as a subprocess, and the kubeconfig files that it and the operator read."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


class KubectlError(RuntimeError):
    """kubectl ended with an error, or did not end; the message holds the command and what it said."""


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    token: str,
    certificate_authority: bytes | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig for one server and one bearer token, readable by its owner only.

    `certificate_authority` is PEM; None for plain HTTP or a certificate the system trusts.
    """
    cluster: dict[str, str] = {"server": server}
    if certificate_authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(certificate_authority).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devkit", "cluster": cluster}],
        "users": [{"name": "devkit", "user": {"token": token}}],
        "contexts": [{"name": "devkit", "context": {"cluster": "devkit", "user": "devkit", "namespace": namespace}}],
        "current-context": "devkit",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def read_cluster(kubeconfig: Path) -> tuple[str, bytes | None]:
    """The server address of a kubeconfig's current context, and its CA as PEM if it names one."""
    config = yaml.safe_load(kubeconfig.read_text())
    contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
    clusters = {entry["name"]: entry["cluster"] for entry in config["clusters"]}
    cluster = clusters[contexts[config["current-context"]]["cluster"]]
    if data := cluster.get("certificate-authority-data"):
        return cluster["server"], base64.b64decode(data)
    if file := cluster.get("certificate-authority"):
        return cluster["server"], (kubeconfig.parent / file).read_bytes()
    return cluster["server"], None


class Kubectl:
    """kubectl against one kubeconfig and, if given, one namespace. Nothing is taken from $KUBECONFIG."""

    def __init__(self, kubeconfig: Path, namespace: str | None = None, *, program: str | Path = "kubectl") -> None:
        found = shutil.which(program)
        if found is None:
            raise KubectlError(f"{program} is not on the PATH: see https://kubernetes.io/docs/tasks/tools/#kubectl")
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self._program = found

    def in_namespace(self, namespace: str) -> Kubectl:
        return Kubectl(self.kubeconfig, namespace, program=self._program)

    def run(
        self, *args: str, input: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `kubectl ARGS`; `timeout` in seconds. With `check`, an exit code other than 0 raises."""
        command = [self._program, f"--kubeconfig={self.kubeconfig}"]
        if self.namespace is not None:
            command.append(f"--namespace={self.namespace}")
        command += args
        shown = shlex.join(["kubectl", *command[2:]])
        try:
            result = subprocess.run(
                command,
                # Without stdin, `apply -f -` and credential plugins would wait for the terminal.
                input=input if input is not None else "",
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                # A variable must not point kubectl at another cluster or change what it prints.
                env={k: v for k, v in os.environ.items() if not k.startswith(("KUBECONFIG", "KUBECTL_"))},
            )
        except subprocess.TimeoutExpired as error:
            said = error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr or ""
            raise KubectlError(f"{shown}\n  did not end within {timeout:g} s\n{said}") from error
        if check and result.returncode != 0:
            raise KubectlError(f"{shown}\n  ended with {result.returncode}\n{result.stderr}")
        return result

    def json(self, *args: str, timeout: float = 60) -> Any:
        """Run `kubectl ARGS -o json` and parse what it prints."""
        return json.loads(self.run(*args, "--output=json", timeout=timeout).stdout)

    def apply(
        self,
        manifest: str | Mapping[str, Any],
        *args: str,
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """`kubectl apply -f -` of a YAML text or of one object; `args` are further flags."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return self.run("apply", "--filename=-", *args, input=text, check=check, timeout=timeout)
