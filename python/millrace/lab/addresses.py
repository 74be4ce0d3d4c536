"""Hand out the addresses of a lab: each once, the lowest first."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from millrace.lab.errors import LabError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Pool:
    """The addresses of one network, with those that are taken."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._hosts: Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address] = network.hosts()
        self._taken: set[str] = set()

    def take(self) -> str:
        """The next free address with its prefix length, as `192.0.2.1/24`."""
        for host in self._hosts:
            if str(host) not in self._taken:
                self._taken.add(str(host))
                return f"{host}/{self.network.prefixlen}"
        raise LabError(f"all addresses of {self.network} are taken; give the lab a larger network")

    def mark(self, address: str) -> None:
        """Take a certain address. Giving it to two owners is allowed: a test of conflicts does."""
        self._taken.add(address.partition("/")[0])


class Pools:
    """The networks of a lab. A host may have at most one interface in each, or it would not know
    by which of them to send."""

    def __init__(self, networks: str | Iterable[str]) -> None:
        texts = [networks] if isinstance(networks, str) else list(networks)
        if not texts:
            raise LabError("a lab needs at least one network to take addresses from")
        self._pools: dict[Network, Pool] = {}
        for text in texts:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as error:
                raise LabError(f"{text!r} is no network such as 192.0.2.0/24: {error}") from error
            self._pools[network] = Pool(network)

    def first_without(self, used: Iterable[Network]) -> Pool:
        """The first network that none of `used` overlaps."""
        taken = list(used)
        for network, pool in self._pools.items():
            if not any(_overlap(network, other) for other in taken):
                return pool
        names = ", ".join(str(network) for network in self._pools)
        raise LabError(
            f"these hosts already have an interface in each network of the lab ({names}); "
            "give the wire addresses=(..., ...) or the lab more networks"
        )

    def of(self, address: str) -> Pool:
        """The pool an address given by hand belongs to; a new one if the lab has none."""
        try:
            network = ipaddress.ip_interface(address).network
        except ValueError as error:
            raise LabError(
                f"{address!r} is no address with a prefix length, such as 192.0.2.1/24: {error}"
            ) from error
        if "/" not in address:
            raise LabError(f"{address} needs a prefix length, as in {address}/24")
        return self._pools.setdefault(network, Pool(network))


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
