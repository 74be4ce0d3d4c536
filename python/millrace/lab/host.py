"""A host: a network namespace with programs that run in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pickle
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from millrace.lab import leftovers, syscalls
from millrace.lab.errors import CommandFailed, LabError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from millrace.lab.wire import Interface

_LAUNCHER = Path(__file__).with_name("launch.py")
_File = int | IO[Any] | None

R = TypeVar("R")
P = ParamSpec("P")


class Host:
    """A virtual host; `Lab.host` makes it. Programs in it see its interfaces and no others."""

    def __init__(self, name: str, netns: str, *, ipv6: bool) -> None:
        #: What `Lab.host` was told.
        self.name = name
        #: The name of its network namespace, as `ip netns` lists it.
        self.netns = netns
        #: Its ends of wires, in the order they were made (without `lo`).
        self.interfaces: list[Interface] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._spawner: ThreadPoolExecutor | None = None
        _make_namespace(self.netns_path)
        try:
            if not ipv6:
                # Linux's own neighbour and router solicitations are noise in a measurement.
                self.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
                self.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
            with self.netlink() as netlink:
                netlink.link("set", index=1, state="up")
        except BaseException:
            leftovers.remove_namespace(netns)
            raise

    def __repr__(self) -> str:
        return f"<Host {self.name} in {self.netns}>"

    @property
    def netns_path(self) -> Path:
        """The file that stands for its network namespace."""
        return leftovers.NETNS_FOLDER / self.netns

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Move the calling thread, and no other, into this host for the length of a `with`.

        Sockets, ports and threads that are made inside belong to the host and keep working after
        it. What /sys shows does not change, and /proc/net only as /proc/thread-self/net.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = self._open()
            try:
                syscalls.set_network_namespace(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                syscalls.set_network_namespace(before)
        finally:
            os.close(before)

    @contextlib.contextmanager
    def netlink(self) -> Iterator[IPRoute]:
        """pyroute2's `IPRoute`, talking to this host's part of the kernel.

        What the kernel refuses inside the `with` block leaves it as `LabError`. It runs an event
        loop of its own, so it cannot be used inside a coroutine.
        """
        from pyroute2 import IPRoute, NetlinkError

        with self.enter():
            handle = IPRoute()
        with handle:
            try:
                yield handle
            except NetlinkError as error:
                reason = os.strerror(error.code)
                raise LabError(
                    f"the kernel refused a change to host {self.name}: {reason}"
                ) from error

    def sysctl(self, key: str, value: str | int | None = None) -> str:
        """Read a setting of this host's network (`net.ipv4.ip_forward`), or set it first."""
        # Interface names may hold dots, so sysctl(8) takes slashes as well.
        path = Path("/proc/sys", key if "/" in key else key.replace(".", "/"))
        if path.parts[3] != "net" or ".." in path.parts:
            raise LabError(f"{key} is no setting of a host's own: those begin with 'net.'")
        with self.enter():
            try:
                if value is not None:
                    path.write_text(str(value))
                return path.read_text().strip()
            except OSError as error:
                action = "read" if value is None else f"set to {value}"
                raise LabError(
                    f"{key} on host {self.name} cannot be {action}: {error.strerror}"
                ) from error

    def popen(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: _File = subprocess.DEVNULL,
        stdout: _File = None,
        stderr: _File = None,
        text: bool = False,
    ) -> subprocess.Popen[Any]:
        """Start a program on this host, on one core if `core` is given.

        `env` is added to this process's environment. The program leads a session of its own; it
        is killed when this process ends, however that ends, and when the lab is torn down. A
        program that is not there, or a core that may not be used, raises `LabError`.
        """
        command = [os.fspath(arg) for arg in args]
        if not command:
            raise LabError(f"no program given to run on host {self.name}")
        os.close(self._open())  # it may be gone
        self._processes = [process for process in self._processes if process.poll() is None]

        def spawn() -> subprocess.Popen[Any]:
            return self._spawn(command, core, env, cwd, stdin, stdout, stderr, text)

        # The kernel ends the program when the *thread* that started it ends (PR_SET_PDEATHSIG),
        # so a thread that may end first leaves the starting to one that stays.
        if threading.current_thread() is threading.main_thread():
            process = spawn()
        else:
            if self._spawner is None:
                self._spawner = ThreadPoolExecutor(1, f"millrace-lab-{self.name}")
            process = self._spawner.submit(spawn).result()
        self._processes.append(process)
        return process

    def _spawn(
        self,
        command: list[str],
        core: int | None,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        stdin: _File,
        stdout: _File,
        stderr: _File,
        text: bool,
    ) -> subprocess.Popen[Any]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        with open(read_end, "rb") as report:
            try:
                launcher = [
                    *(sys.executable, "-I", "-S", str(_LAUNCHER), str(self.netns_path)),
                    *("" if core is None else str(core), str(os.getpid()), str(write_end), "--"),
                ]
                process = subprocess.Popen(
                    [*launcher, *command],
                    env=None if env is None else {**os.environ, **env},
                    cwd=cwd,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    text=text,
                    start_new_session=True,
                    pass_fds=(write_end,),
                )
            finally:
                os.close(write_end)
            # The launcher's copy is closed by the exec, or carries why there was none.
            problem = report.read().decode(errors="replace")
        if problem:
            process.communicate()
            _, _, sentence = problem.partition(" ")
            raise LabError(f"cannot run {shlex.join(command)} on host {self.name}: {sentence}")
        process.args = command
        return process

    def run(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        input: str | None = None,
        timeout: float | None = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end and give what it wrote.

        Raises `CommandFailed` (with what it wrote to standard error) if its status is not zero,
        unless `check` is off, and in any case after `timeout` seconds: then it and what it
        started are killed.
        """
        process = self.popen(
            args,
            core=core,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        command = [os.fspath(arg) for arg in args]
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            _kill_session(process)
            out, err = process.communicate()
            raise CommandFailed(self.name, command, None, out, err) from None
        except BaseException:
            _kill_session(process)
            process.wait()
            raise
        if check and process.returncode != 0:
            raise CommandFailed(self.name, command, process.returncode, out, err)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def call(
        self,
        function: Callable[..., R],
        *args: Any,
        core: int | None = None,
        timeout: float | None = 60.0,
    ) -> R:
        """Run a Python function on this host, in a forked copy of this process.

        What it returns or raises must be able to be pickled; what it changes is lost. It begins
        with a copy of one thread, so it must not need a lock that another thread may hold.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._answer(write_end, parent, core, function, args)
        os.close(write_end)
        try:
            with open(read_end, "rb") as answer:
                data = _read_until(answer, timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        name = getattr(function, "__qualname__", repr(function))
        if data is None:
            raise LabError(f"{name} on host {self.name} did not return within {timeout} s")
        if not data:
            end = os.waitstatus_to_exitcode(status)
            raise LabError(f"{name} on host {self.name} ended its process with status {end}")
        good, value = pickle.loads(data)
        if good:
            result: R = value
            return result
        raise value

    def _answer(
        self,
        write_end: int,
        parent: int,
        core: int | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> NoReturn:
        """The forked child's whole life."""
        try:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            syscalls.die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            try:
                if core is not None:
                    self._use_core(core)
                with self.enter():
                    result = function(*args)
                answer = _pickle_result(result)
            except BaseException as error:
                answer = _pickle_error(error)
            with open(write_end, "wb") as pipe:
                pipe.write(answer)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)

    def _use_core(self, core: int) -> None:
        try:
            os.sched_setaffinity(0, {core})
        except (OSError, ValueError, OverflowError, TypeError):
            have = sorted(os.sched_getaffinity(0))
            raise LabError(
                f"cannot call anything on host {self.name}: core {core} cannot be used; "
                f"this process may run on {have}"
            ) from None

    def neighbour_flush(self) -> None:
        """Forget the link-layer addresses of all neighbours, except those that were set to stay."""
        from pyroute2 import NetlinkError

        permanent_or_no_arp = 0x80 | 0x40  # NUD_PERMANENT, NUD_NOARP of linux/neighbour.h
        with self.netlink() as netlink:
            for entry in list(netlink.get_neighbours()):
                if entry["state"] & permanent_or_no_arp:
                    continue
                try:
                    netlink.neigh("del", ifindex=entry["ifindex"], dst=entry.get("dst"))
                except NetlinkError as error:
                    if error.code != errno.ENOENT:  # it expired meanwhile
                        raise

    def stop(self, seconds: float = 2.0) -> None:
        """End all programs on this host: ask those started by `popen`, then kill all there is."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + seconds
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_session(process)
                process.wait()
        self._processes.clear()
        if self._spawner is not None:
            self._spawner.shutdown()
            self._spawner = None
        leftovers.kill_processes_in(self.netns_path)

    def remove(self) -> None:
        """End all programs and take the namespace away; an open socket in it keeps it alive."""
        self.stop()
        leftovers.remove_namespace(self.netns)
        self.interfaces.clear()

    def _open(self) -> int:
        try:
            return os.open(self.netns_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LabError(f"host {self.name} is gone: its lab was torn down") from None


def _make_namespace(path: Path) -> None:
    """Make a network namespace and bind it to `path`, as `ip netns add` does."""
    failure: list[OSError] = []

    def create() -> None:
        # unshare(2) moves the calling thread for good, so that thread must be a passing one.
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            syscalls.mount("/proc/thread-self/ns/net", str(path), "none", syscalls.MS_BIND)
        except OSError as error:
            failure.append(error)

    path.parent.mkdir(exist_ok=True)
    _share(path.parent)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    if failure:
        path.unlink()
        raise LabError(f"cannot make a network namespace: {failure[0].strerror}") from failure[0]


def _share(folder: Path) -> None:
    """Make the namespaces' folder a shared mount, as `ip netns add` does.

    If `ip` came first to that, it would cover the names that are there, and nobody could take them
    away any more.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            syscalls.mount("", str(folder), "none", syscalls.MS_SHARED | syscalls.MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: it is no mount yet
                raise LabError(f"cannot share {folder}: {error.strerror}") from error
            syscalls.mount(str(folder), str(folder), "none", syscalls.MS_BIND | syscalls.MS_REC)
            syscalls.mount("", str(folder), "none", syscalls.MS_SHARED | syscalls.MS_REC)
    finally:
        os.close(fd)


def _kill_session(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _read_until(pipe: IO[bytes], timeout: float | None) -> bytes | None:
    """All bytes up to the end of a pipe; None if that does not come in time."""
    deadline = None if timeout is None else time.monotonic() + timeout
    data = bytearray()
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([pipe], [], [], left)
        if not ready:
            return None
        chunk = os.read(pipe.fileno(), 1 << 16)
        if not chunk:
            return bytes(data)
        data += chunk


def _pickle_result(result: object) -> bytes:
    try:
        return pickle.dumps((True, result))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        kind = type(result).__name__
        raise LabError(f"a result of type {kind} cannot be brought back: {error}") from None


def _pickle_error(error: BaseException) -> bytes:
    trace = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"raised on the host, there:\n{trace}")
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)  # some exceptions pickle and cannot be built again
    except Exception:
        answer = pickle.dumps((False, LabError(f"the call failed on the host:\n{trace}")))
    return answer
