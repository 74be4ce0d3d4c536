"""What is wrong: checks of `millrace.host.checks.platform`."""

from __future__ import annotations

from typing import Any

from millrace.host import NotAvailable
from millrace.host.platform import Kernel, Platform, Privileges

from .register import INFO, fault


@fault("capabilities", INFO, "CAP_NET_ADMIN")
def an_ordinary_user(server: Any) -> None:
    server.set(privileges=Privileges(1000, (), None, 1024))


@fault("blind-spots", INFO, "not read: sockets")
def sockets_cannot_be_read(server: Any) -> None:
    server.set(sockets=NotAvailable("permission denied", "root"))


@fault("kernel-options", INFO, "CONFIG_XDP_SOCKETS: AF_XDP ports")
def kernel_without_af_xdp(server: Any) -> None:
    server.set(kernel=Kernel("6.18", "", {"CONFIG_XDP_SOCKETS": "n"}, True))


@fault("virtual-machine", INFO, "hypervisor QEMU")
def in_a_virtual_machine(server: Any) -> None:
    server.set(platform=Platform("QEMU", "Standard PC"))
