"""The frame of the command line: statuses, one-line errors, lazy commands."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import millrace
from millrace import cli


@pytest.fixture
def with_command(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A command `mill` for the length of a test; it must be given its `command`."""
    module = types.ModuleType("millrace.cli.mill")
    monkeypatch.setitem(sys.modules, "millrace.cli.mill", module)
    monkeypatch.setattr(cli, "COMMANDS", ("ports", "mill"))
    return module


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"millrace {millrace.__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f" {name} " in shown


def test_no_arguments_is_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.EXIT_USAGE
    streams = capsys.readouterr()
    assert "Usage: millrace" in streams.out + streams.err
    assert "millrace: " not in streams.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "millrace: No such command 'nosuch'.\n"),
        (["ports", "--nosuch"], "millrace ports: No such option: --nosuch\n"),
        (["ports", "extra"], "millrace ports: Got unexpected extra argument(s) (extra)\n"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == cli.EXIT_USAGE
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("one\n  two"), "one two"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (PermissionError(1, "not allowed; run as root"), "not allowed; run as root"),
        (ValueError(), "ValueError"),
    ],
)
def test_failure_is_one_line(
    error: Exception,
    message: str,
    with_command: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        """Fail."""
        raise error

    with_command.command = command  # type: ignore[attr-defined]
    assert cli.main(["mill"]) == cli.EXIT_FAILURE
    assert capsys.readouterr().err == f"millrace mill: {message}\n"


def test_traceback_on_request(
    with_command: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        """Fail."""
        raise RuntimeError("why")

    with_command.command = command  # type: ignore[attr-defined]
    monkeypatch.setenv("MILLRACE_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="why"):
        cli.main(["mill"])


def test_defects_are_not_hidden(with_command: types.ModuleType) -> None:
    def command() -> None:
        """Fail."""
        raise KeyError("defect")

    with_command.command = command  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        cli.main(["mill"])


def test_interrupt(with_command: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        """Wait."""
        raise KeyboardInterrupt

    with_command.command = command  # type: ignore[attr-defined]
    assert cli.main(["mill"]) == 130
    assert capsys.readouterr().err == ""


def test_status_of_a_command(with_command: types.ModuleType) -> None:
    def command() -> int:
        """Give a status."""
        return 7

    with_command.command = command  # type: ignore[attr-defined]
    assert cli.main(["mill"]) == 7


def test_group_of_commands(
    with_command: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    app = typer.Typer()

    @app.command()
    def grind(stones: int) -> None:
        """Grind."""
        print(f"{stones} stones")

    @app.command()
    def stop() -> None:
        """Stop."""

    with_command.app = app  # type: ignore[attr-defined]
    assert cli.main(["mill", "grind", "2"]) == 0
    assert capsys.readouterr().out == "2 stones\n"


def test_broken_socket_is_a_failure(
    with_command: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        """Fail."""
        raise BrokenPipeError(32, "the peer is gone")

    with_command.command = command  # type: ignore[attr-defined]
    assert cli.main(["mill"]) == cli.EXIT_FAILURE
    assert capsys.readouterr().err == "millrace mill: the peer is gone\n"


def test_closed_pipe_is_no_error() -> None:
    source = "import sys; from millrace.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", source, "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_commands_are_imported_when_asked_for() -> None:
    source = (
        "import sys; from millrace.cli import main; main(['--version']); "
        "print([name for name in sys.modules if name in ('millrace.cli.ports', 'pyroute2')])"
    )
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"
