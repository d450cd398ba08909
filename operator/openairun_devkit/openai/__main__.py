"""The stand-in as a process: ``python -m openairun_devkit.openai --port 0 --port-file FILE``."""

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from openairun_devkit.openai import scripts
from openairun_devkit.openai.scripts import SHORTHANDS, parse
from openairun_devkit.openai.server import OpenAIStandIn


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m openairun_devkit.openai",
        description="A stand-in for OpenAI, on loopback only.",
        epilog=_scripts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--port-file", type=Path, help="gets the port once the stand-in answers")
    parser.add_argument("--key", action="append", help="an accepted key (sk-standin); may be repeated")
    parser.add_argument(
        "--script",
        type=_script,
        default="complete",
        help="for runs whose metadata name none: see below",
    )
    parser.add_argument("--no-assistants", action="store_true", help="answer 404 under /threads, as OpenAI does")
    parser.add_argument("--strict-threads", action="store_true", help="one active run a thread or conversation")
    asyncio.run(_serve(parser.parse_args(arguments)))


def _scripts() -> str:
    """Which scripts there are, for people."""
    names = "\n".join(f"  {name:<16}{script}" for name, script in SHORTHANDS.items())
    return f"{scripts.__doc__}\nThese have a name:\n\n{names}"


def _script(text: str) -> str:
    parse(text)
    return text


async def _serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    asked_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end.set)
    standin = OpenAIStandIn(
        port=arguments.port,
        keys=arguments.key or ("sk-standin",),
        script=arguments.script,
        assistants=not arguments.no_assistants,
        strict_threads=arguments.strict_threads,
    )
    async with standin:
        if arguments.port_file is not None:
            _write(arguments.port_file, str(standin.port))
        print(f"OpenAI stand-in on {standin.url}", flush=True)
        await asked_to_end.wait()


def _write(path: Path, text: str) -> None:
    """Write the file so that nobody ever reads half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


if __name__ == "__main__":
    main()
