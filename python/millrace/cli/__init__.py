"""The command `millrace`: one thin file a command.

A command `name` is the module `millrace.cli.name` with either a function `command`, whose
signature and docstring are its options and its help, or a `typer.Typer` called `app` for one with
subcommands. It is added by its name in `COMMANDS`. Only the module of the command that was asked
for is imported, and a module imports what is heavy inside its function, so that each starts fast.

What a command raises as `OSError`, `ValueError` or `RuntimeError` reaches the user as one line and
exit status 1; anything else is a defect of ours and shows its traceback.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import millrace

#: In the order of `millrace --help`.
COMMANDS = (
    "demo",
    "serve",
    "load",
    "capture",
    "send",
    "replay",
    "meter",
    "bench",
    "forward",
    "simulate",
    "ports",
    "xdp",
    "doctor",
    "tune",
    "top",
    "netstat",
    "interfaces",
    "drops",
    "dump",
    "exporter",
)

EXIT_FAILURE = 1
EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
_EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


class _LazyGroup(TyperGroup):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"millrace.cli.{cmd_name}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False)
            app.command(cmd_name)(module.command)
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command


_app = typer.Typer(
    cls=_LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"millrace {millrace.__version__}")
        raise typer.Exit


@_app.callback()
def _millrace(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Kernel-bypass networking for Linux."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return _EXIT_BROKEN_PIPE
        if os.environ.get("MILLRACE_TRACEBACK"):
            raise
        print(_one_line(words, _sentence(error)), file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return status


def _run(words: list[str]) -> int:
    # Not `command.main`: Typer's hides EPIPE, which a command may meet on a socket as well.
    command = typer.main.get_command(_app)
    try:
        with command.make_context("millrace", words.copy()) as context:
            result = command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        # No arguments at all raises as well, without a message: the help is printed already.
        if message := error.format_message():
            print(_one_line(words, message), file=sys.stderr)
        return error.exit_code
    return result if isinstance(result, int) else 0


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more, as after `millrace ports | head -1`."""
    try:
        stdout = sys.stdout.fileno()
    except OSError:  # a test's
        return False
    poll = select.poll()
    poll.register(stdout, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    # Python flushes once more at its end; let that go nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _one_line(words: Sequence[str], message: str) -> str:
    name = f"millrace {words[0]}" if words and words[0] in COMMANDS else "millrace"
    if message.endswith("^"):  # it points at a place in the line above
        return f"{name}: {message}"
    return f"{name}: {' '.join(message.split())}"
