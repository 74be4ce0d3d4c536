"""What is wrong: checks of `millrace.host.checks.drops`."""

from __future__ import annotations

from typing import Any

from .register import BAD, fault


@fault("drop-reasons", BAD, "NETFILTER_DROP: 20,000 packets dropped", "millrace drops")
def a_rule_drops(server: Any) -> None:
    server.set(drops={"NETFILTER_DROP": 5}).later(drops={"NETFILTER_DROP": 20_005})
