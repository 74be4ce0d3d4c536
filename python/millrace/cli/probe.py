"""Find out what this machine lets this user do, by trying it.

Each attempt runs in a forked child, in a network namespace of its own where that is allowed, and
leaves nothing behind. Numbers are those of the kernel's uapi headers named beside them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import importlib.util
import mmap
import os
import pickle
import platform
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from millrace.lab import syscalls, userns


class Missing(Exception):
    """What was tried does not work; the message says what it takes."""


@dataclass(frozen=True)
class Finding:
    """The outcome for one port kind or one feature of the machine."""

    name: str
    available: bool
    #: "here", "user namespace", or None where it is not available.
    where: str | None
    detail: str
    #: What it takes to have it, or to have it without a user namespace; "" for nothing.
    needs: str


def all_findings() -> list[Finding]:
    """Everything `millrace ports` tells, port kinds first."""
    return [
        _tried("af_xdp", try_af_xdp),
        _tried("af_packet", try_af_packet),
        _tried("tap", try_tap),
        _native("memory", "two stacks in one process, joined by a wire in virtual time"),
        _native("pcap", "reads and writes pcap and pcapng files"),
        Finding("kernel", True, "here", f"Linux {platform.release()}'s own TCP/IP", ""),
        _user_namespaces(),
        _hugepages(),
    ]


# linux/if_xdp.h
_AF_XDP = 44
_SOL_XDP = 283
_XDP_UMEM_REG = 4
# linux/bpf.h
_BPF_MAP_CREATE = 0
_BPF_PROG_LOAD = 5
_BPF_MAP_TYPE_XSKMAP = 17
_BPF_PROG_TYPE_XDP = 6
_BPF_SYSTEM_CALL = {"x86_64": 321, "s390x": 351, "ppc64le": 361}  # asm/unistd.h; others: 280
_RETURN_XDP_PASS = bytes.fromhex("b700000002000000 9500000000000000")


def try_af_xdp() -> str:
    """Open a socket, register memory with it, make its map and load a program."""
    try:
        handle = socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise Missing("CAP_NET_RAW to open an AF_XDP socket; run as root") from error
        raise Missing(f"a kernel with CONFIG_XDP_SOCKETS ({error.strerror})") from error
    with handle:
        chunk = 4096
        umem = mmap.mmap(-1, 16 * chunk)
        address = ctypes.addressof(ctypes.c_char.from_buffer(umem))
        # struct xdp_umem_reg as of Linux 4.18: the kernel takes the short form of any age.
        register = struct.pack("=QQII", address, len(umem), chunk, 0)
        try:
            handle.setsockopt(_SOL_XDP, _XDP_UMEM_REG, register)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Missing("locked memory for the UMEM; raise it with ulimit -l") from error
            raise Missing(f"a UMEM registration that works ({error.strerror})") from error
    _bpf(
        "make an XSKMAP",
        _BPF_MAP_CREATE,
        struct.pack("=IIIII", _BPF_MAP_TYPE_XSKMAP, 4, 4, 1, 0),
    )
    instructions = ctypes.create_string_buffer(_RETURN_XDP_PASS)
    license_name = ctypes.create_string_buffer(b"Apache-2.0")
    program = struct.pack(
        "=IIQQIIQII",
        _BPF_PROG_TYPE_XDP,
        len(_RETURN_XDP_PASS) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_name),
        *(0, 0, 0, 0, 0),
    )
    _bpf("load an XDP program", _BPF_PROG_LOAD, program)
    return "socket, UMEM, XSKMAP and XDP program work; zero-copy depends on the driver"


def _bpf(what: str, command: int, attribute: bytes) -> None:
    number = _BPF_SYSTEM_CALL.get(platform.machine(), 280)
    libc = ctypes.CDLL(None, use_errno=True)
    padded = ctypes.create_string_buffer(attribute, 128)
    fd = libc.syscall(number, command, ctypes.byref(padded), ctypes.c_uint(len(padded)))
    if fd >= 0:
        os.close(fd)
        return
    error = ctypes.get_errno()
    if error in (errno.EPERM, errno.EACCES):
        raise Missing(f"CAP_BPF and CAP_NET_ADMIN to {what}; run as root")
    if error == errno.ENOSYS:
        raise Missing("a kernel with CONFIG_BPF_SYSCALL")
    raise Missing(f"a kernel that can {what} ({os.strerror(error)})")


# linux/if_packet.h
_SOL_PACKET = 263
_PACKET_VERSION = 10
_TPACKET_V3 = 2
_PACKET_VNET_HDR = 15


def try_af_packet() -> str:
    """Open a socket and choose the ring's version."""
    try:
        handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise Missing("CAP_NET_RAW to open an AF_PACKET socket; run as root") from error
        raise Missing(f"a kernel with CONFIG_PACKET ({error.strerror})") from error
    with handle:
        try:
            handle.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            handle.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        except OSError as error:
            raise Missing(f"a kernel with TPACKET_V3 and PACKET_VNET_HDR ({error})") from error
    return "TPACKET_V3 rings with virtio-net headers work"


# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_MULTI_QUEUE = 0x0100
_TUN_F_CSUM_TSO4_TSO6 = 0x01 | 0x02 | 0x04


def try_tap() -> str:
    """Make a TAP interface; it goes when its descriptor is closed."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise Missing("permission for /dev/net/tun (chmod 666 as root); or run as root") from error
    except OSError as error:
        raise Missing(
            "/dev/net/tun (modprobe tun; in a container --device /dev/net/tun)"
        ) from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_MULTI_QUEUE
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"mrprobe%d", flags))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM_TSO4_TSO6)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise Missing("CAP_NET_ADMIN to make a TAP interface; run as root") from error
        raise Missing(f"a TAP driver with queues and offloads ({error.strerror})") from error
    finally:
        os.close(fd)
    return "several queues, virtio-net headers and segmentation offload work"


def _tried(name: str, attempt: Callable[[], str]) -> Finding:
    works, here = _in_child(attempt, enter_user_namespace=False)
    if works:
        return Finding(name, True, "here", here, "")
    if os.geteuid() != 0:
        works, inside = _in_child(attempt, enter_user_namespace=True)
        if works:
            return Finding(name, True, "user namespace", inside, here)
    return Finding(name, False, None, "", here)


def _native(name: str, detail: str) -> Finding:
    if importlib.util.find_spec("millrace._native") is None:
        return Finding(name, False, None, "", "the native module; build it with make build")
    return Finding(name, True, "here", detail, "")


def _user_namespaces() -> Finding:
    name = "user_namespace"
    if os.geteuid() == 0:
        detail = "not needed: this is root" if userns.may_make_networks() else ""
        if detail:
            return Finding(name, True, "here", detail, "")

    def attempt() -> str:
        return "hosts and wires without root work"

    works, text = _in_child(attempt, enter_user_namespace=True)
    return Finding(name, works, "here" if works else None, *((text, "") if works else ("", text)))


def _hugepages() -> Finding:
    values = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            key, _, value = line.partition(":")
            values[key] = value.split()[0]
    free, size = int(values.get("HugePages_Free", 0)), values.get("Hugepagesize", "0")
    if free:
        return Finding("hugepages", True, "here", f"{free} free pages of {size} KiB", "")
    needs = "sysctl vm.nr_hugepages=N as root; until then arenas use ordinary pages"
    return Finding("hugepages", False, None, "", needs)


def _in_child(attempt: Callable[[], str], *, enter_user_namespace: bool) -> tuple[bool, str]:
    """Whether an attempt works in a forked child, and its detail or what it takes."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _answer(write_end, attempt, enter_user_namespace)
    os.close(write_end)
    with open(read_end, "rb") as answer:
        data = answer.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        return False, f"an attempt that does not end by status {os.waitstatus_to_exitcode(status)}"
    works, text = pickle.loads(data)
    return works, text


def _answer(write_end: int, attempt: Callable[[], str], enter_user_namespace: bool) -> NoReturn:
    try:
        try:
            if enter_user_namespace:
                userns.enter()
            else:
                # An ordinary user's attempt says itself what it lacks.
                with contextlib.suppress(OSError):
                    syscalls.unshare(syscalls.CLONE_NEWNET)
            answer = (True, attempt())
        except Missing as error:
            answer = (False, str(error))
        except OSError as error:
            answer = (False, error.strerror or str(error))
        with open(write_end, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
    finally:
        os._exit(0)
