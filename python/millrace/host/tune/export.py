"""A plan as something else keeps it: a shell script, a systemd unit, a tuned profile."""

from __future__ import annotations

import os
from pathlib import Path

from millrace.host import targets
from millrace.host.targets import File, Service, Sysctl
from millrace.host.tune.plan import Plan, Write


def shell(plan: Plan) -> str:
    """A script: `apply` (also without an argument) writes, `undo` takes back."""
    applied = [_commented(write, write.shell) for write in plan.writes]
    back = [write.shell_back for write in reversed(plan.writes) if write.shell_back]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {_one_line(plan.title)}",
            *(f"# By hand: {_one_line(one.what)}" for one in plan.advice),
            "set -u",
            "",
            "apply() {",
            *_indented(applied),
            "}",
            "",
            "undo() {",
            *_indented(back),
            "}",
            "",
            'case "${1:-apply}" in',
            "apply) apply ;;",
            "undo) undo ;;",
            '*) echo "usage: $0 apply|undo" >&2; exit 2 ;;',
            "esac",
            "",
        ]
    )


def systemd(plan: Plan) -> str:
    """A unit that writes when it starts and takes back when it stops."""
    device = f"sys-subsystem-net-devices-{_escaped_unit(plan.interface)}.device"
    after = ["After=network-pre.target", f"BindsTo={device}", f"After={device}"]
    return "\n".join(
        [
            "[Unit]",
            f"Description=Millrace: {_one_line(plan.title).replace('%', '%%')}",
            *(after if plan.interface else after[:1]),
            "",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            *(f"ExecStart=-/bin/sh -c {_unit_word(write.shell)}" for write in plan.writes),
            *(
                f"ExecStop=-/bin/sh -c {_unit_word(write.shell_back)}"
                for write in reversed(plan.writes)
                if write.shell_back
            ),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )


def tuned(plan: Plan) -> tuple[str, str]:
    """tuned.conf, and the script it names for what tuned has no plug-in for."""
    sysctls, sysfs, services, rest = [], [], [], []
    for write in plan.writes:
        target = targets.parse(write.target)
        if isinstance(target, Sysctl):
            sysctls.append(f"{target.key}={write.new}")
        elif isinstance(target, File) and target.path.startswith("/sys/"):
            sysfs.append(f"{target.path}={write.new}")
        elif isinstance(target, Service):
            verb = "start" if write.new == "active" else "stop"
            services.append(f"service.{target.unit}={verb}")
        else:
            rest.append(write)
    parts = ["[main]", f"summary=Millrace: {_one_line(plan.title)}", ""]
    for name, lines in (("sysctl", sysctls), ("sysfs", sysfs), ("service", services)):
        if lines:
            parts += [f"[{name}]", *lines, ""]
    if rest:
        parts += ["[script]", "script=${i:PROFILE_DIR}/script.sh", ""]
    back = [write.shell_back for write in reversed(rest) if write.shell_back]
    script = [
        "#!/bin/sh",
        "start() {",
        *_indented([write.shell for write in rest]),
        "}",
        "stop() {",
        *_indented(back),
        "}",
        'case "$1" in start) start ;; stop) stop ;; verify) exit 0 ;; esac',
        "",
    ]
    return "\n".join(parts), "\n".join(script)


def write(plan: Plan, form: str, path: str) -> list[str]:
    """Write a plan in a form; give the files. Raises `ValueError` for one that does not exist."""
    where = Path(path)
    if form == "shell":
        where.write_text(shell(plan))
        os.chmod(where, 0o755)
        return [str(where)]
    if form == "systemd":
        where.write_text(systemd(plan))
        return [str(where)]
    if form == "tuned":
        where.mkdir(parents=True, exist_ok=True)
        conf, script = tuned(plan)
        (where / "tuned.conf").write_text(conf)
        (where / "script.sh").write_text(script)
        os.chmod(where / "script.sh", 0o755)
        return [str(where / "tuned.conf"), str(where / "script.sh")]
    raise ValueError(f"no form {form!r}; there is shell, systemd and tuned")


def _commented(write: Write, line: str) -> str:
    return f"{line}  # {_one_line(write.why)}"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines] or ["    :"]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unit_word(line: str) -> str:
    """A line of a shell as one word of systemd's: systemd.service(5), COMMAND LINES."""
    escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _escaped_unit(name: str) -> str:
    """An interface's name as systemd-escape(1) writes it."""
    kept = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_"
    return "".join(
        char if char in kept or (char == "." and at) else
        "".join(f"\\x{byte:02x}" for byte in char.encode())
        for at, char in enumerate(name)
    )  # fmt: skip
