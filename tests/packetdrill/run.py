"""Let packetdrill judge the stack: run a folder of its scripts against the plug-in.

    python tests/packetdrill/run.py --packetdrill BINARY --scripts FOLDER

Neither packetdrill nor its scripts are part of this repository. Any folder of scripts will do. The
binary must be able to load the plug-in: built with `-static`, as its makefile has it, it cannot.

Each script runs in user, network and mount namespaces of its own, with a tun0 as packetdrill would
make it and with files that stand for /proc/sys/net/ipv4, so that `sysctl` in a script sets what the
plug-in reads, on every kernel and without privileges. Its commands run in bash, for which they are
written, and see the stack's counters (`nstat`) and reach its memory of peers (`ip tcp_metrics`).

Like packetdrill's own runner, this one gives a script the addresses of the family that it is run
in, whatever addresses it names itself, unless it is for one family only. What follows from the
family and is written down in it is translated, and the result says so: Fast Open cookies
(fast_open_cookies.py), and the ICMP code for a host that cannot be reached.

A script ends as one of:

passed             packetdrill found every packet and every result as the script says
failed             it did not, or it died
unsupported        the script uses a feature of features.toml; it was not run and is not a success
timeout            it was still running after --timeout seconds of real time
environment error  a namespace, a command of the script's set-up, or packetdrill itself did not work
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import fast_open_cookies

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

PASSED = "passed"
FAILED = "failed"
UNSUPPORTED = "unsupported"
TIMEOUT = "timeout"
ENVIRONMENT = "environment error"
STATUSES = (PASSED, FAILED, UNSUPPORTED, TIMEOUT, ENVIRONMENT)

# What the sandbox ends with when it could not be made; packetdrill ends with 0 or 1.
SANDBOX_FAILED = 125

# What packetdrill says when a command before the first event fails.
SETUP_FAILED = ("error executing init command", "error executing cleanup command")


@dataclass(frozen=True)
class Family:
    """Addresses of one variant, and what a script of either family may refer to by name."""

    name: str
    local: str
    prefix: int
    gateway: str
    remote: str
    mtu: int
    options: tuple[str, ...]
    definitions: tuple[tuple[str, str], ...]


_IPV4 = Family(
    "ipv4",
    local="192.168.0.1",
    prefix=16,
    gateway="192.168.0.1",
    remote="192.0.2.1",
    mtu=1500,
    options=("--netmask_ip=255.255.0.0",),
    definitions=(
        ("TFO_COOKIE", "3021b9d889017eeb"),
        ("CODE", "host_unreachable"),
        ("CMSG_LEVEL_IP", "SOL_IP"),
        ("CMSG_TYPE_RECVERR", "IP_RECVERR"),
    ),
)

_IPV6 = Family(
    "ipv6",
    local="fd3d:0a0b:17d6::1",
    prefix=48,
    gateway="fd3d:0a0b:17d6:8888::1",
    remote="fd3d:fa7b:d17d::1",
    # Twenty bytes more of header leave the same room for payload.
    mtu=1520,
    options=("--mtu=1520",),
    definitions=(
        ("TFO_COOKIE", "c1d1e9742a47a9bc"),
        ("CODE", "address_unreachable"),
        ("CMSG_LEVEL_IP", "SOL_IPV6"),
        ("CMSG_TYPE_RECVERR", "IPV6_RECVERR"),
    ),
)

_MAPPED = replace(
    _IPV4,
    name="ipv4-mapped-ipv6",
    definitions=(
        ("TFO_COOKIE", "3021b9d889017eeb"),
        ("CODE", "host_unreachable"),
        ("CMSG_LEVEL_IP", "SOL_IPV6"),
        ("CMSG_TYPE_RECVERR", "IPV6_RECVERR"),
    ),
)

# What packetdrill takes itself, for scripts of IPv6 alone: those for both families are the reason
# for a larger MTU.
_IPV6_ALONE = replace(
    _IPV6,
    local="fd3d:fa7b:d17d::1",
    gateway="fd3d:fa7b:d17d:8888::",
    remote="2001:db8::1",
    mtu=1500,
    options=(),
)

FAMILIES = {family.name: family for family in (_IPV4, _IPV6, _MAPPED)}


@dataclass(frozen=True)
class Feature:
    """Something that the stack does not have, and how to see that a script uses it."""

    name: str
    pattern: re.Pattern[str]
    reason: str


def load_features(path: Path = HERE / "features.toml") -> list[Feature]:
    table = tomllib.loads(path.read_text())
    return [
        Feature(entry["name"], re.compile(entry["pattern"]), entry["reason"])
        for entry in table["feature"]
    ]


# A comment, or what may hold the like of one: a string, or commands for a shell.
_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|`[^`]*`', re.DOTALL)


def without_comments(text: str) -> str:
    """The script as packetdrill reads it. Commands in backticks and strings keep theirs."""
    return _TOKEN.sub(lambda match: match[0] if match[0][0] in '"`' else " ", text)


def unsupported(text: str, features: Iterable[Feature]) -> Feature | None:
    """The first feature that the script uses and the stack does not have."""
    text = without_comments(text)
    return next((feature for feature in features if feature.pattern.search(text)), None)


def script_option(text: str, name: str) -> str | None:
    """The value of an option that the script itself gives, as in `--local_ip=192.0.2.7`."""
    matches = re.findall(rf"^\s*--{name}=(\S+)", without_comments(text), re.MULTILINE)
    return matches[-1] if matches else None


def script_address(text: str, name: str, family: Family) -> str | None:
    """An address that the script gives, if it is one of the family's."""
    address = script_option(text, name)
    if address is None or (":" in address) != (":" in family.local):
        return None
    return address


def applies(path: Path, text: str, family: Family) -> bool:
    """Whether the script is meant for the family: it may say so, or its name may tell, as
    packetdrill's own runner has it."""
    version = script_option(text, "ip_version")
    if version is not None:
        return version == family.name
    if path.stem.endswith("v6"):
        return family.name == "ipv6"
    if path.stem.endswith("v4"):
        return family.name != "ipv6"
    return True


def variant(path: Path, text: str, family: Family) -> Family:
    """The addresses to run a script with."""
    alone = path.stem.endswith("v6") or script_option(text, "ip_version") is not None
    if family.name != "ipv6" or not alone:
        return family
    # A device takes what the script's routes through it do.
    routes = re.findall(r"\bmtu lock (\d+)", without_comments(text))
    return replace(_IPV6_ALONE, mtu=max(_IPV6_ALONE.mtu, *map(int, routes), 0))


def translated(path: Path, text: str, family: Family) -> str:
    """The script with what follows from its addresses made for those that it gets."""
    other = _IPV4 if family.name == "ipv6" else _IPV6
    before = tuple(
        script_address(text, f"{side}_ip", other) or getattr(other, side)
        for side in ("remote", "local")
    )
    # Keys may be set by what the script runs.
    ran = [path.parent / name for name in re.findall(r"[\w./-]+\.sh\b", text)]
    known = [
        key
        for one in ran
        if one.is_file()
        for key in fast_open_cookies.keys(one.read_text(errors="replace"))
    ]
    after = (family.remote, family.local)
    text = fast_open_cookies.translate(text, known, (before[0], before[1]), after)
    code, own = (dict(one.definitions)["CODE"] for one in (other, family))
    return re.sub(rf"\b(icmp unreachable) {code}\b", rf"\1 {own}", text)


@dataclass(frozen=True)
class Result:
    """What became of one script in one family."""

    script: str
    family: str
    status: str
    reason: str
    seconds: float
    output: str = ""
    # Something in the script was for another family, and translated.
    translated: bool = False


def classify(status: int | None, output: str) -> tuple[str, str]:
    """Status and reason from how packetdrill ended (`None`: it did not) and what it said."""
    lines = [line for line in output.splitlines() if line.strip()]
    said = next((line for line in lines if ".pkt:" in line), lines[-1] if lines else "")
    if status is None:
        return TIMEOUT, said
    if status == 0:
        return PASSED, ""
    if status == SANDBOX_FAILED:
        return ENVIRONMENT, lines[-1] if lines else "the sandbox could not be made"
    if setup := next((line for line in lines if any(text in line for text in SETUP_FAILED)), None):
        return ENVIRONMENT, setup
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        with contextlib.suppress(ValueError):
            said = f"died of {signal.Signals(number).name}; {said}"
    return FAILED, said or f"ended with status {status} and said nothing"


def read_sysctls(path: Path = HERE / "sysctl.toml") -> dict[str, str]:
    return {name: str(value) for name, value in tomllib.loads(path.read_text()).items()}


def packetdrill_command(
    packetdrill: Path, plugin: Path, script: str, text: str, family: Family, extra: Sequence[str]
) -> list[str]:
    local = [family.local]
    if (own := script_address(text, "local_ip", family)) is not None and own not in local:
        local.append(own)
    remote = script_address(text, "remote_ip", family) or family.remote
    options = [
        f"--ip_version={family.name}",
        f"--local_ip={family.local}",
        f"--gateway_ip={family.gateway}",
        f"--remote_ip={family.remote}",
        *family.options,
    ]
    flags = [f"local={address}" for address in local]
    flags += [f"remote={remote}", f"mtu={family.mtu}", *extra]
    if (mss := script_option(text, "mss")) is not None:
        flags.append(f"mss={mss}")

    def given(option: str) -> bool:
        """The script says so itself, and for this family."""
        name = option[2:].split("=")[0]
        if name in ("local_ip", "remote_ip"):
            return script_address(text, name, family) is not None
        return script_option(text, name) is not None

    return [
        str(packetdrill),
        # What the command line says overrides what the script says.
        *(option for option in options if not given(option)),
        *(f"-D{name}={value}" for name, value in family.definitions),
        f"--so_filename={plugin}",
        f"--so_flags={','.join(flags)}",
        script,
    ]


def furnish(place: Path) -> None:
    """Puts into a folder what the place in which packetdrill runs is made of."""
    for name in ("sysctl", "bin", "proc"):
        (place / name).mkdir()
    for setting, value in read_sysctls().items():
        (place / "sysctl" / setting).write_text(value + "\n")
    # What the kernel remembers of peers the stack remembers itself: it is told to forget. (Of the
    # kernel only its own root may ask that.)
    flushed = place / "proc" / "tcp_metrics_flushed"
    tool = place / "bin" / "ip"
    tool.write_text(
        "#!/bin/sh\n"
        f'case "$1 $2" in "tcp_metrics flush") : >"{flushed}"; exit ;; esac\n'
        f'exec {shutil.which("ip") or "ip"} "$@"\n'
    )
    tool.chmod(0o755)


def sandbox_script(family: Family, text: str) -> str:
    """Shell commands that make the place in which packetdrill runs. $1 is a folder with settings
    and tools; the command to run follows."""
    remotes = {family.remote, script_address(text, "remote_ip", family) or family.remote}
    locals_ = {family.local, script_address(text, "local_ip", family) or family.local}
    version = "-6" if family.name == "ipv6" else "-4"
    nodad = " nodad" if family.name == "ipv6" else ""
    lines = [
        f"trap 'exit {SANDBOX_FAILED}' EXIT",
        "set -e",
        "mount -t tmpfs -o mode=755 settings /proc/sys/net/ipv4",
        'cp "$1"/sysctl/* /proc/sys/net/ipv4/',
        'mount --bind "$(command -v bash)" /bin/sh',
        "ip tuntap add dev tun0 mode tun",
        f"ip link set dev tun0 mtu {family.mtu} up",
        *(f"ip addr add {local}/{family.prefix} dev tun0{nodad}" for local in sorted(locals_)),
        *(f"ip {version} route add {remote} dev tun0" for remote in sorted(remotes)),
        'export PATH="$1/bin:$PATH" PROC_ROOT="$1/proc" NSTAT_HISTORY="$1/nstat"',
        "shift",
        "trap - EXIT; set +e",
        # Scripts that change settings may leave a file that would have restored them.
        '"$@" & pid=$!; wait $pid; status=$?',
        'rm -f "/tmp/sysctl_restore_$pid.sh"; exit $status',
    ]
    return "\n".join(lines)


class Runner:
    """Runs scripts, several at once."""

    def __init__(
        self,
        packetdrill: Path,
        plugin: Path,
        *,
        features: list[Feature] | None = None,
        timeout: float = 30.0,
        run_unsupported: bool = False,
        flags: Sequence[str] = (),
        sandbox: bool = True,
    ) -> None:
        self.packetdrill = packetdrill.resolve()
        self.plugin = plugin.resolve()
        self.features = load_features() if features is None else features
        self.timeout = timeout
        self.run_unsupported = run_unsupported
        self.flags = flags
        self.sandbox = sandbox

    def run(self, script: Path, family: Family, name: str) -> Result:
        text = script.read_text(errors="replace")
        if not self.run_unsupported and (feature := unsupported(text, self.features)):
            return Result(name, family.name, UNSUPPORTED, f"{feature.name}: {feature.reason}", 0.0)
        began = time.monotonic()
        family = variant(script, text, family)
        as_translated = translated(script, text, family)
        with tempfile.TemporaryDirectory(prefix="millrace-packetdrill-") as folder:
            place = Path(folder)
            furnish(place)
            path = script.name
            if as_translated != text:
                # It is still run where it is: its commands are named from there.
                path = str(place / script.name)
                Path(path).write_text(as_translated)
            flags = [*self.flags, f"proc={place / 'proc'}"]
            command = packetdrill_command(self.packetdrill, self.plugin, path, text, family, flags)
            if self.sandbox:
                command = [
                    *("unshare", "--user", "--map-root-user", "--net", "--mount"),
                    *("--fork", "--kill-child"),
                    *("sh", "-c", sandbox_script(family, text), "sandbox", folder),
                    *("env", f"LD_PRELOAD={self.plugin}"),
                    *command,
                ]
            status, output = self.finish(command, script.parent)
        verdict, reason = classify(status, output)
        seconds = time.monotonic() - began
        return Result(name, family.name, verdict, reason, seconds, output, as_translated != text)

    def finish(self, command: list[str], folder: Path) -> tuple[int | None, str]:
        """Status (`None`: had to be killed) and all that was said."""
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return SANDBOX_FAILED, f"cannot start {command[0]}: {error.strerror}"
        try:
            output, _ = process.communicate(timeout=self.timeout)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
        return status, output.decode(errors="replace")

    def run_all(self, jobs: Iterable[tuple[Path, Family, str]], at_once: int) -> Iterator[Result]:
        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(lambda job: self.run(*job), jobs)


def find_scripts(folder: Path, only: str | None) -> list[tuple[Path, str]]:
    """Scripts below the folder (or the one that it is) with the names to show."""
    if folder.is_file():
        return [(folder, folder.name)]
    found = [(path, str(path.relative_to(folder))) for path in sorted(folder.rglob("*.pkt"))]
    return [
        (path, name)
        for path, name in found
        if only is None or fnmatch.fnmatch(name, only) or fnmatch.fnmatch(path.name, only)
    ]


def summary(results: Sequence[Result]) -> list[str]:
    """Totals of each family. Unsupported is a column of its own and adds to nothing."""
    lines = []
    for family in dict.fromkeys(result.family for result in results):
        counts = Counter(result.status for result in results if result.family == family)
        total = sum(counts.values())
        parts = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
        line = f"{family}: {parts}; {counts[PASSED]} of {total} passed"
        passed = [one for one in results if (one.family, one.status) == (family, PASSED)]
        if of_those := sum(result.translated for result in passed):
            line += f", {of_those} of them translated"
        lines.append(line)
    return lines


def default_plugin() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    name = "libmillrace_packetdrill.so"
    found = [path for path in (target / "release" / name, target / "debug" / name) if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime, default=target / "debug" / name)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="build the plug-in with: cargo build --release -p millrace-packetdrill",
    )
    parser.add_argument("--packetdrill", type=Path, required=True, help="packetdrill's binary")
    parser.add_argument("--scripts", type=Path, required=True, help="folder of scripts, or one")
    parser.add_argument("--plugin", type=Path, help="the plug-in; by default the newest build")
    parser.add_argument("--json", type=Path, help="write one row for each script here")
    parser.add_argument("--only", metavar="GLOB", help="run only scripts with such names")
    parser.add_argument(
        "--family", choices=[*FAMILIES, "all"], default="ipv4", help="address family (ipv4)"
    )
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for a script (30)")
    parser.add_argument(
        "--run-unsupported", action="store_true", help="run scripts of features.toml as well"
    )
    parser.add_argument("--flag", action="append", default=[], help="a flag for the plug-in")
    parser.add_argument("-v", "--verbose", action="store_true", help="all that packetdrill says")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    plugin = options.plugin or default_plugin()
    for path, what in (
        (options.packetdrill, "packetdrill's binary"),
        (options.scripts, "a script or a folder of them"),
        (plugin, "the plug-in; build it with: cargo build --release -p millrace-packetdrill"),
    ):
        if not path.exists():
            print(f"{path} does not exist; it must be {what}", file=sys.stderr)
            return 2
    families = FAMILIES.values() if options.family == "all" else [FAMILIES[options.family]]
    jobs = [
        (path, family, name)
        for family in families
        for path, name in find_scripts(options.scripts, options.only)
        if applies(path, path.read_text(errors="replace"), family)
    ]
    if not jobs:
        print(f"no script below {options.scripts} matches", file=sys.stderr)
        return 2
    runner = Runner(
        options.packetdrill,
        plugin,
        timeout=options.timeout,
        run_unsupported=options.run_unsupported,
        flags=options.flag,
    )
    results = []
    for result in runner.run_all(jobs, max(1, options.jobs)):
        results.append(result)
        reason = f": {result.reason}" if result.reason else ""
        print(f"{result.status:<17} {result.family} {result.script}{reason}", flush=True)
        if options.verbose and result.output:
            print(result.output, end="")
    print(*summary(results), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    bad = {FAILED, TIMEOUT, ENVIRONMENT}
    return 1 if any(result.status in bad for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
