"""A throw-away Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager if found.

The programs are looked for where controller-runtime's envtest looks for them
(https://book.kubebuilder.io/reference/envtest.html); nothing is downloaded.
`python -m openairun_devkit.controlplane` starts one and keeps it until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import platform
import random
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from openairun_devkit.kubectl import write_kubeconfig

HOW_TO_GET_BINARIES = (
    "install them with `go run sigs.k8s.io/controller-runtime/tools/setup-envtest@latest use`, "
    "or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"
)

# Below every platform's range of ephemeral ports: while the API server is stopped, no outgoing
# connection can be given its port, so that it can come back on it.
_PORTS = range(20_000, 32_000)
_START_TIMEOUT = 60.0  # seconds; about 3 are usual, a loaded machine needs more
_POLL = 0.05  # seconds


class ControlPlaneError(RuntimeError):
    """A program of the control plane did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Binaries:
    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path | None = None
    kubectl: Path | None = None


def find_binaries(environ: Mapping[str, str] = os.environ) -> Binaries | None:
    """Look for the programs as envtest does; None if etcd or kube-apiserver is missing.

    A single program named by TEST_ASSET_… wins. If KUBEBUILDER_ASSETS is set, no other folder is
    looked at: who names a folder does not want another version tested.
    """
    for folder in [*_folders(environ), None]:
        etcd = _program("etcd", folder, environ)
        kube_apiserver = _program("kube-apiserver", folder, environ)
        if etcd and kube_apiserver:
            return Binaries(
                etcd=etcd,
                kube_apiserver=kube_apiserver,
                kube_controller_manager=_program("kube-controller-manager", folder, environ),
                kubectl=_program("kubectl", folder, environ),
            )
    return None


def _folders(environ: Mapping[str, str]) -> list[Path]:
    if assets := environ.get("KUBEBUILDER_ASSETS"):
        return [Path(assets)]
    home = Path(environ.get("HOME") or Path.home())
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    stores = [
        data / "kubebuilder-envtest/k8s",
        home / "Library/Application Support/io.kubebuilder.envtest/k8s",
    ]
    return [Path("/usr/local/kubebuilder/bin"), *(f for store in stores for f in _newest_first(store))]


def _newest_first(store: Path) -> list[Path]:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    pattern = re.compile(rf"v?(\d+)\.(\d+)\.(\d+)-{sys.platform}-{re.escape(arch)}")
    versions: list[tuple[tuple[int, ...], Path]] = []
    for folder in store.iterdir() if store.is_dir() else ():
        if match := pattern.fullmatch(folder.name):
            versions.append((tuple(map(int, match.groups())), folder))
    return [folder for _, folder in sorted(versions, reverse=True)]


def _program(name: str, folder: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = environ.get("TEST_ASSET_" + name.upper().replace("-", "_"))
    path = Path(named) if named else folder / name if folder else None
    return path if path and path.is_file() and os.access(path, os.X_OK) else None


def die_with_parent() -> Callable[[], None]:
    """A `preexec_fn` that lets the child be killed when its parent dies, however that dies (Linux only).

    No `finally`, `atexit` or signal handler runs in a parent that is SIGKILLed, by the OOM killer or a
    CI time-out for instance; only the kernel can still clean up, with PR_SET_PDEATHSIG. The kernel
    watches the *thread* that forked, so start such a child from a thread that lives as long as it is
    needed. Elsewhere than on Linux this does nothing, and a SIGKILLed parent leaves its children behind.
    """
    parent = os.getpid()
    # Loaded before the fork: between fork and exec, taking a lock could hang for ever.
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def before_exec() -> None:
        if libc is not None:
            libc.prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG, see prctl(2)
            if os.getppid() != parent:  # it died before prctl took effect
                os._exit(1)

    return before_exec


class Process(Protocol):
    """What `subprocess.Popen` has that is needed to end a process."""

    @property
    def pid(self) -> int: ...

    def wait(self, timeout: float) -> int: ...


def kill_group(process: Process) -> None:
    """SIGKILL a process that leads its own group, with all that is in the group, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a zombie
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)


def _free_ports(count: int) -> list[int]:
    # Held until all are chosen: the same port is not given out twice.
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            candidate = stack.enter_context(socket.socket())
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise ControlPlaneError(f"no free port on loopback in {_PORTS.start}-{_PORTS.stop - 1}")


class ControlPlane:
    """`with ControlPlane(binaries) as cp:` runs a control plane; when the block ends it is gone.

    RBAC is on and admission is the API server's default, except that Pods need no ServiceAccount
    token. There are no nodes and no controllers but those that delete namespaces and collect
    garbage; without kube-controller-manager not even those (`has_controllers`).
    """

    def __init__(self, binaries: Binaries) -> None:
        self.binaries = binaries
        self.version = ""
        self.has_controllers = binaries.kube_controller_manager is not None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @staticmethod
    def find() -> Binaries | None:
        return find_binaries()

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="openairun-controlplane-"))
        try:
            self._start()
        except BaseException:  # Ctrl-C too
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator."""
        return self.directory / "kubeconfig"

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def certificate_authority(self) -> bytes:
        """PEM of the certificate that the API server signed for itself, and of its CA."""
        return (self.directory / "certs/apiserver.crt").read_bytes()

    @property
    def pids(self) -> list[int]:
        """Process ids of what runs now."""
        return [process.pid for process in self._processes.values()]

    def stop(self) -> None:
        """Kill all there is and remove the data. Nothing is worth a graceful shutdown here."""
        for name in reversed(list(self._processes)):
            self._kill(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop_apiserver(self) -> None:
        """Kill the API server, as an outage does; etcd and the controllers stay."""
        self._kill("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server, again on the same port with the same data, and wait until it is ready."""
        if "kube-apiserver" in self._processes:
            raise ControlPlaneError("kube-apiserver runs already")
        self._spawn(
            "kube-apiserver",
            self.binaries.kube_apiserver,
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--cert-dir=certs",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            # The server writes this key beside its certificate before it reads it for tokens: one
            # key less to make, and no openssl needed.
            "--service-account-signing-key-file=certs/apiserver.key",
            "--service-account-key-file=certs/apiserver.key",
        )
        self._wait("kube-apiserver", self._apiserver_is_ready)

    def _start(self) -> None:
        self._port, self._etcd_port, peer_port = _free_ports(3)
        self._token = secrets.token_hex(16)
        (self.directory / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        self._spawn(
            "etcd",
            self.binaries.etcd,
            "--data-dir=etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        )
        self._wait("etcd", self._etcd_is_ready)
        self.start_apiserver()
        self.version = str(json.loads(self._get("/version"))["gitVersion"])
        write_kubeconfig(
            self.kubeconfig,
            server=self.server,
            token=self._token,
            certificate_authority=self.certificate_authority,
        )
        if self.binaries.kube_controller_manager is not None:
            self._spawn(
                "kube-controller-manager",
                self.binaries.kube_controller_manager,
                "--kubeconfig=kubeconfig",
                "--controllers=namespace-controller,garbage-collector-controller",
                "--use-service-account-credentials=false",
                "--leader-elect=false",
                "--secure-port=0",
            )

    def _spawn(self, name: str, program: Path, *args: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [program.resolve(), *args],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # ETCD_… variables would be read as flags, and proxies have no business on loopback.
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory)},
                # A terminal's Ctrl-C must reach us only: we decide when they end.
                process_group=0,
                preexec_fn=die_with_parent(),
            )

    def _kill(self, name: str) -> None:
        if (process := self._processes.get(name)) is not None:
            kill_group(process)
            del self._processes[name]

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ready():
                    return
            ended = self._processes[name].poll()
            if ended is not None or time.monotonic() > deadline:
                what = f"is not ready after {_START_TIMEOUT:g} s" if ended is None else f"ended with {ended}"
                raise ControlPlaneError(f"{name} {what}; the end of its log:\n{self._log_end(name)}")
            time.sleep(_POLL)

    def _log_end(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def _etcd_is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200

    def _apiserver_is_ready(self) -> bool:
        return self._get("/readyz") == b"ok"

    def _get(self, path: str) -> bytes:
        context = ssl.create_default_context(cafile=self.directory / "certs/apiserver.crt")
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5, context=context)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            return connection.getresponse().read()


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(
        prog="python -m openairun_devkit.controlplane",
        description="A real, throw-away Kubernetes control plane on loopback, until Ctrl-C.",
    ).parse_args(argv)
    binaries = ControlPlane.find()
    if binaries is None:
        raise SystemExit(f"etcd and kube-apiserver were not found: {HOW_TO_GET_BINARIES}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), ControlPlane(binaries) as cp:
        print(f"export KUBECONFIG={cp.kubeconfig}  # Kubernetes {cp.version}, until Ctrl-C", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
