"""The stand-in as a process: ``python -m openairun_devkit.cluster`` serves until Ctrl-C."""

import argparse
import contextlib
import signal
from collections.abc import Sequence

from openairun_devkit.cluster.server import StandInCluster


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m openairun_devkit.cluster", description="A stand-in for a Kubernetes API server, on loopback."
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background job would ignore the latter
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), StandInCluster(port=arguments.port) as cluster:
        print(f"export KUBECONFIG={cluster.kubeconfig}  # a stand-in for Kubernetes, until Ctrl-C", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
