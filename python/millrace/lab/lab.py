"""A lab: hosts and wires that live as long as a `with` block."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self, Unpack

from millrace.lab import leftovers, teardown, userns
from millrace.lab import wire as wires
from millrace.lab.addresses import Pools
from millrace.lab.errors import LabError
from millrace.lab.host import Host
from millrace.lab.impaired import join_impaired
from millrace.lab.impairment import Wishes
from millrace.lab.wire import Wire

#: The networks that RFC 5737 sets aside for documentation; no machine's own traffic uses them.
TEST_NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_numbers = itertools.count()
_TEARDOWN_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Lab:
    """Virtual hosts on this machine, joined by wires.

        with Lab() as lab:
            client, server = lab.host("client"), lab.host("server")
            wire = lab.wire(client, server)
            print(client.run(["ping", "-c", "1", wire.b.ip]).stdout)

    It needs CAP_NET_ADMIN and CAP_SYS_ADMIN; without them the process moves into a user namespace
    first (`millrace.lab.userns.enter`), and `PermissionError` says what to do where that is not
    allowed. Everything is taken down at the end of the block, on SIGTERM and SIGHUP, and at the
    process's end. What a killed process left is removed by the next lab that starts.
    """

    def __init__(
        self,
        name: str | None = None,
        addresses: str | Iterable[str] = TEST_NETWORKS,
        *,
        ipv6: bool = False,
    ) -> None:
        """`addresses`: networks that `wire` takes addresses from; each wire uses the first that
        its hosts are not in yet. `ipv6`: let Linux use IPv6 on the hosts.
        """
        #: Tells labs of one process apart; part of the namespaces' names.
        self.name = _checked("lab", name if name is not None else f"lab{next(_numbers)}")
        self.hosts: dict[str, Host] = {}
        self.wires: list[Wire] = []
        self._pools = Pools(addresses)
        self._ipv6 = ipv6
        self._macs = itertools.count(1)
        self._middles = itertools.count()
        self._closed = False
        if not userns.may_make_networks():
            userns.enter()
        leftovers.remove_leftovers()
        teardown.register(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lab {self.name}: {', '.join(self.hosts) or 'no hosts'}>"

    def host(self, name: str) -> Host:
        """Make a host. Its name is unique in the lab: letters, digits, `-` and `_`."""
        self._check_open()
        _checked("host", name)
        if name in self.hosts:
            raise LabError(f"lab {self.name} already has a host {name}")
        netns = leftovers.namespace_name(self.name, name)
        try:
            host = Host(name, netns, ipv6=self._ipv6)
        except FileExistsError:
            raise LabError(f"this process has another lab {self.name} with a host {name}") from None
        self.hosts[name] = host
        return host

    def wire(
        self,
        a: Host,
        b: Host,
        *,
        queues: int = 1,
        mtu: int = 1500,
        addresses: tuple[str | None, str | None] | None = None,
        offloads: Mapping[str, bool] | None = None,
        macs: tuple[str | None, str | None] = (None, None),
        names: tuple[str | None, str | None] = (None, None),
        seed: int | None = None,
        core: int | None = None,
        **impairments: Unpack[Wishes],
    ) -> Wire:
        """Join two hosts and bring both ends up.

        `queues`: receive and transmit queues of each end. `addresses`: what Linux has on the two
        ends (`"192.0.2.1/24"`, or None for an end without); not given, they are taken from the
        lab's networks. `offloads`: as for ethtool, at both ends (`{"tso": False}`). `macs` and
        `names`: not given, they are 02:4d:52:00:00:01 and on, and eth0 and on.

        Any of the following puts a forwarder of ours in the middle, which takes the native module.
        Each is one value for both directions, or a pair: for what `a` sends and for what `b` sends.
        `delay` ("10ms", or seconds): time on the way. `jitter`: up to so much more, in order unless
        `jitter_reorders`. `rate` ("100M", or bit/s) of Ethernet frames, with a `queue` before it
        ("1bdp", which is the default where there is a delay, "50packets", "64KiB" or bytes) that
        drops what does not fit, and marks with Congestion Experienced above `mark`. `loss` ("1%",
        or 0.01), in bursts of `burst` packets on average if that is given. `duplicate`, `corrupt`
        (one bit) and `reorder` (by `reorder_delay`): probabilities too. The same `seed` and the
        same packets meet the same fate. `core`: where the forwarder runs.

        Packets on such a wire are as on a cable: the ends segment and sum in software, whatever
        `offloads` says of the rest. `Wire.statistics` tells what was done to them.
        """
        self._check_open()
        for host in (a, b):
            if not isinstance(host, Host):
                raise TypeError(f"a wire joins two hosts of a lab, not {host!r}")
            if self.hosts.get(host.name) is not host:
                raise LabError(f"host {host.name} does not belong to lab {self.name}")
        for what, pair in (("addresses", addresses), ("macs", macs), ("names", names)):
            if pair is not None and (isinstance(pair, str) or len(pair) != 2):
                raise LabError(f"{what} are a pair, one for each end, not {pair!r}")
        impaired = bool(impairments) or seed is not None
        if core is not None and not impaired:
            raise LabError(
                "core is where the forwarder of an impaired wire runs, and this wire has none"
            )
        pool, chosen = wires.pick_addresses(self._pools, a, b, addresses)
        first = names[0] or _free_name(a, set())
        second = names[1] or _free_name(b, {first} if a is b else set())
        both = (macs[0] or self._next_mac(), macs[1] or self._next_mac())
        if impaired:
            wire: Wire = join_impaired(
                self.name,
                next(self._middles),
                a,
                b,
                pool,
                impairments,
                seed=seed or 0,
                core=core,
                queues=queues,
                mtu=mtu,
                addresses=chosen,
                offloads=offloads or {},
                macs=(*both, self._next_mac(), self._next_mac()),
                names=(first, second),
            )
        else:
            wire = wires.join(
                a,
                b,
                pool,
                queues=queues,
                mtu=mtu,
                addresses=chosen,
                offloads=offloads or {},
                macs=both,
                names=(first, second),
            )
        self.wires.append(wire)
        return wire

    def address(self) -> str:
        """A free address of the lab's first network, with its prefix length."""
        return self._pools.first_without(()).take()

    def close(self) -> None:
        """Take everything down. A second call does nothing."""
        if self._closed:
            return
        # A second Ctrl-C waits until this is done.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _TEARDOWN_SIGNALS)
        try:
            # Each step is tried even if one before it failed; they run from the last to the first.
            with contextlib.ExitStack() as steps:
                steps.callback(self._end)
                for host in self.hosts.values():
                    steps.callback(host.remove)
                for wire in self.wires:
                    steps.callback(wire.remove)
                for host in self.hosts.values():
                    steps.callback(host.stop)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _end(self) -> None:
        self._closed = True
        teardown.unregister(self)

    def _check_open(self) -> None:
        if self._closed:
            raise LabError(f"lab {self.name} was torn down")

    def _next_mac(self) -> str:
        number = next(self._macs)
        return f"02:4d:52:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _checked(what: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LabError(
            f"{name!r} is no name for a {what}: 1 to 32 letters, digits, '-' and '_', "
            "beginning with a letter or digit"
        )
    return name


def _free_name(host: Host, also_taken: set[str]) -> str:
    taken = {interface.name for interface in host.interfaces} | also_taken
    return next(name for name in map("eth{}".format, itertools.count()) if name not in taken)
