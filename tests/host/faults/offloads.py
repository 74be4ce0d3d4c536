"""What is wrong: checks of `millrace.host.checks.offloads`."""

from __future__ import annotations

from typing import Any

from millrace.host.checks import Goal

from .own import channel
from .register import BAD, WARN, fault


@fault("gro", WARN, "GRO is off", "ethtool -K eth0 rx-gro on")
def no_gro(server: Any) -> None:
    server.features(rx_gro=False)


@fault("lro-forwarding", BAD, "LRO is on", "ethtool -K eth0 rx-lro off")
def lro_on_a_router(server: Any) -> None:
    server.features(rx_lro=True).sysctl(net__ipv4__ip_forward=1)


@fault("tx-offloads", WARN, "off: tso", "tx-tcp-segmentation on")
def no_segmentation(server: Any) -> None:
    server.features(tx_tcp_segmentation=False, tx_tcp6_segmentation=False)


@fault("tx-offloads", BAD, "off: tx, gso", "tx-checksum-ip-generic on", Goal.THROUGHPUT)
def no_checksums(server: Any) -> None:
    server.features(tx_checksum_ip_generic=False, tx_generic_segmentation=False)


@fault("offloads-under-millrace", BAD, "on: lro", "ethtool -K eth0 rx-lro off")
def lro_under_a_port(server: Any) -> None:
    channel(server)
    server.features(rx_lro=True)
