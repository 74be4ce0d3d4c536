"""Generated traffic: packets of a template, some of whose fields vary, sent at a pace; and a meter
that tells what became of them.

    from millrace.packets.generator import Generator, Random, Zipf, packet, sender

    template = packet(
        source=Zipf("10.0.0.1", "10.0.3.254"),
        destination="10.1.0.1",
        source_port=Random(1024, 65535),
        size=512,
    )
    with sender("eth1") as port:
        report = Generator(template, packets_per_s=1e6, seconds=10).run(port)
    print(report.packets_per_s, report.behind)

Packets are rendered below Python, with right lengths and checksums.
"""

from __future__ import annotations

from millrace.packets.generator.meter import Meter, MeterReport, StreamReport
from millrace.packets.generator.sending import Generator, SendReport
from millrace.packets.generator.template import Field, Template, packet
from millrace.packets.generator.values import (
    IMIX,
    Cycle,
    Random,
    Sequence,
    Values,
    Weighted,
    Zipf,
    parse,
)
from millrace.packets.sender import sender

__all__ = [
    "IMIX",
    "Cycle",
    "Field",
    "Generator",
    "Meter",
    "MeterReport",
    "Random",
    "SendReport",
    "Sequence",
    "StreamReport",
    "Template",
    "Values",
    "Weighted",
    "Zipf",
    "packet",
    "parse",
    "sender",
]
