"""The wires of the demo: a veth pair, and for `tap` an interface that the server makes itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from millrace.bench.arms import KERNEL, Site
from millrace.lab import Host, Lab

_TAP = "tap0"
_TAP_KERNEL_ADDRESS = "198.51.100.1/24"
_TAP_ADDRESS = "198.51.100.2/24"


@dataclass(frozen=True)
class Wiring:
    """Where servers of one port kind run, and where the load comes from."""

    client: Host
    server: Host
    #: The interface that the server's port is on.
    interface: str
    #: What the server is reached at, with its prefix length.
    address: str

    def site(self, port: str, program: Path, folder: Path) -> Site:
        return Site(port, self.interface, self.address, program, folder)

    def forget_neighbours(self) -> None:
        """The next server may have another hardware address."""
        self.client.neighbour_flush()

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Do, while a server runs, what this wiring needs done."""
        yield


@dataclass(frozen=True)
class TapWiring(Wiring):
    """The server's TAP interface appears with the server; its kernel side is the client."""

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Give the interface its kernel address as soon as it is there."""
        end = threading.Event()
        follower = threading.Thread(target=self._set_up_when_it_appears, args=(end,))
        follower.start()
        try:
            yield
        finally:
            end.set()
            follower.join()

    def _set_up_when_it_appears(self, end: threading.Event) -> None:
        address, _, prefix = _TAP_KERNEL_ADDRESS.partition("/")
        with self.client.netlink() as netlink:
            while not end.is_set():
                found = list(netlink.link_lookup(ifname=self.interface))
                if found:
                    _ask_often(self.client, self.interface)
                    netlink.addr("replace", index=found[0], address=address, prefixlen=int(prefix))
                    netlink.link("set", index=found[0], state="up")
                    return
                end.wait(0.02)


def lay_out(lab: Lab, kinds: tuple[str, ...]) -> dict[str, Wiring]:
    """Make the hosts and wires for the kernel's arms and for each port kind."""
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    _prepare_client(client)
    interface = wire.b.name
    kernel_address = wire.b.address
    assert kernel_address is not None
    wirings = {KERNEL: Wiring(client, server, interface, kernel_address)}
    # A stack of ours has an address of its own on the interface, beside the kernel's.
    own = Wiring(client, server, interface, wire.address())
    for kind in kinds:
        if kind == "tap":
            host = lab.host("tap")
            _prepare_client(host)
            wirings[kind] = TapWiring(host, host, _TAP, _TAP_ADDRESS)
        else:
            wirings[kind] = own
    return wirings


def _prepare_client(host: Host) -> None:
    # New connections by the ten thousand a second: the client is not what is measured, so it
    # has all ports, and gives them back at once whoever closed first.
    host.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    host.sysctl("net.ipv4.tcp_max_tw_buckets", 64)
    for interface in host.interfaces:
        _ask_often(host, interface.name)


def _ask_often(host: Host, interface: str) -> None:
    # While a server starts, Linux asks for its hardware address, by default once a second.
    host.sysctl(f"net/ipv4/neigh/{interface}/retrans_time_ms", 50)
