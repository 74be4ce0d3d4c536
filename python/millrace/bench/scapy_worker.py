"""Scapy as an arm of the packet bench: `python -m millrace.bench.scapy_worker CONFIG`.

CONFIG is JSON: `work` (`sendp` or `sniff`), `interface`, `frame_bytes`, `seconds`. It speaks as
`packet_worker` does. Scapy's own native socket is used, and packets are Scapy's objects, as
`from scapy.all import *` has them: with all layers known.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
import sys
import time
from typing import Any

_SOL_PACKET, _PACKET_STATISTICS = 263, 6
#: Packets of one call of sendp.
_CALL = 200


def main() -> None:
    """Do one work."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    import scapy.all  # noqa: F401
    from scapy.config import conf
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.sendrecv import sendp, sniff

    config = json.loads(sys.argv[1])
    opened = conf.L2socket(iface=config["interface"])
    # Made as people make them, and of the same bytes as those of the others but for checksums.
    packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    packet /= IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=9, dport=9)
    packet /= Raw(bytes(config["frame_bytes"] - len(packet)))
    packets = [packet] * _CALL
    _say({"ready": True})
    sys.stdin.readline()
    used, begun = time.process_time(), time.monotonic()
    end = begun + config["seconds"]
    count = 0
    more: dict[str, Any] = {}
    if config["work"] == "sendp":
        while time.monotonic() < end:
            sendp(packets, socket=opened, verbose=False)
            count += len(packets)
    else:

        def counted(_: object) -> None:
            nonlocal count
            count += 1

        sniff(opened_socket=opened, store=False, prn=counted, timeout=config["seconds"])
    seconds, used = time.monotonic() - begun, time.process_time() - used
    if config["work"] == "sniff":
        more = _fate_of_the_others(opened.ins, count)
    _say({"seconds": seconds, "cpu_cores": used / seconds, "packets": count, **more})


def _fate_of_the_others(opened: socket.socket, received: int) -> dict[str, int]:
    """What the socket dropped, and what it still has: its sender has ended for long enough."""
    time.sleep(0.5)
    told = opened.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    # All that reached the socket, of which it dropped some (packet(7)).
    packets, dropped = struct.unpack("II", told)
    return {"dropped": dropped, "left": packets - dropped - received}


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
