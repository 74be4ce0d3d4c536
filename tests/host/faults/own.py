"""What is wrong: checks of `millrace.host.checks.own`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.own import OwnChannel

from .register import BAD, WARN, fault


def channel(server: Any, **values: int) -> None:
    """A channel of ours; the values are counted in the window."""
    gauges = {"frames": 4096, "frames_free": 4000, "connections": 5, "connections_most": 1000}
    begin = dict.fromkeys(values, 0) | gauges
    one = OwnChannel(99, "echo", "af_xdp:eth0", 1, 3, begin)
    server.set(own=(one,)).later(own=(dataclasses.replace(one, values=begin | values),))


@fault("own-pool", WARN, "100 of 4,096 frames are free")
def frames_run_out(server: Any) -> None:
    channel(server, frames_free=100)


@fault("own-pool", BAD, "70 times there was none")
def frames_ran_out(server: Any) -> None:
    channel(server, frames_exhausted=70)


@fault("own-drops", BAD, "rx_ring_full 40")
def port_drops(server: Any) -> None:
    channel(server, drop_rx_ring_full=40, benign_ethernet_not_ours=9000)


@fault("own-batches", WARN, "63.0 packets a burst")
def batches_are_full(server: Any) -> None:
    channel(server, rx_bursts=1000, rx_packets=63_000)


@fault("own-busy", WARN, "busy for 99% of the window")
def no_time_left(server: Any) -> None:
    channel(server, turns=100_000, idle_nanoseconds=100_000_000)


@fault("own-transmit", WARN, "5,000 turns with packets left")
def no_room_to_send(server: Any) -> None:
    channel(server, turns=10_000, transmit_stalls=5000)


@fault("own-connections", WARN, "990 of 1,000 connections")
def table_is_full(server: Any) -> None:
    channel(server, connections=990)
