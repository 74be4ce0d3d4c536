"""`millrace ports`: what this machine can do, and for what is missing, what it takes."""

from __future__ import annotations

from millrace.cli.report import JsonOption, show


def command(json_file: JsonOption = None) -> None:
    """Show which kinds of port this machine can open, and what the others take.

    Each is tried for real; nothing is left behind.
    """
    from dataclasses import asdict

    from millrace.cli import probe

    rows = [{"port": found.pop("name"), **found} for found in map(asdict, probe.all_findings())]
    show(rows, json_file=json_file)
