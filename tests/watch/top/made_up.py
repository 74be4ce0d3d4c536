"""A tick that was never measured, with something in every view."""

from __future__ import annotations

from typing import Any

from millrace.watch.top.tick import FORMAT, VERSION


def tick(time: float = 1_700_000_000.0, *, scale: float = 1.0) -> dict[str, Any]:
    """All figures are multiples of `scale`."""
    many = 123_456_789.0 * scale
    flow = {f"{way}_{reach}s": many for way in ("in", "out") for reach in (2, 10, 40)}
    flow |= {"total_in": 10**15, "total_out": 10**14, "connections": 3, "ended": False}
    return {
        "format": FORMAT,
        "version": VERSION,
        "time": time,
        "seconds": 1.0,
        "host": "a-host",
        "cost": {"cpu_share": 0.012},
        "notes": ["something could not be read: permission denied"],
        "views": {
            "overview": [
                {"what": "received", "value": many, "unit": "pps", "note": "1 Gbit/s"},
                {"what": "busiest CPU", "value": 0.5, "unit": "share", "note": "CPU 1"},
            ],
            "cpus": [
                {
                    "cpu": cpu,
                    "busy": 0.5 * scale,
                    "softirq": 0.25,
                    "steal": 0.0,
                    "irqs": many,
                    "net_rx": many,
                    "net_tx": 0.4,
                    "packets": many * (cpu + 1),
                    "dropped": 1.5,
                    "squeezed": 0.0,
                    "rps": 0.0,
                    "flow_limit": 0.0,
                    "backlog": 12,
                }
                for cpu in range(4)
            ],
            "queues": [
                {
                    "interface": "a-very-long-interface-name",
                    "queue": "rx 12",
                    "packets": many,
                    "bits": many,
                    "share": 0.75,
                    "lost": None,
                    "napi": 8193,
                    "irq": 42,
                    "cpus": "0,1,2,3",
                    "inflight": 4096,
                    "limit": 8192,
                }
            ],
            "napi": [
                {
                    "interface": "mr-1-2-lab0.client/eth0",
                    "polls": 1000.0,
                    **{f"le_{n}": 100.0 for n in (0, 1, 2, 4, 8, 16, 32, 63)},
                    "full": 200.0,
                    "empty_share": 0.1,
                    "full_share": 0.2,
                }
            ],
            "ladder": [
                {"layer": "softnet", "arrived": many, "lost": 7.0, "what": "backlog full " * 9}
            ],
            "drops": [
                {
                    "rate": many,
                    "packets": 10**12,
                    "reason": "SOCKET_RCVBUFF",
                    "kind": "loss",
                    "where": "udp_queue_rcv_one_skb",
                    "interface": "mr-1-2-lab0.client/eth0",
                    "protocol": "UDP",
                    "source": "kernel",
                    "example": "192.0.2.1:1 > 192.0.2.2:2",
                    "why": "the buffer is full",
                    "remedy": "read faster",
                }
            ],
            "sockets": [
                {
                    "process": "a-process-with-a-name:12345",
                    "owner": "kernel",
                    "port": "",
                    "protocol": "tcp",
                    "local": "[2001:db8::1234:5678]:443",
                    "peer": "[2001:db8::8765:4321]:50123",
                    "state": "ESTAB",
                    "limited_by": "send buffer",
                    "recv_q": 10**6,
                    "send_q": 0,
                    "in": many,
                    "out": many,
                    "retransmits": 0.25,
                    "rtt_us": 12345,
                    "min_rtt_us": 99,
                    "cwnd": 1234,
                    "delivery": 10**9,
                    "congestion": "cubic",
                    "drops": 3,
                    "age": 0.0,
                }
            ],
            "flows": [
                {"kind": kind, "name": f"{kind} with a rather long name \x1b[31m", **flow}
                for kind in ("process", "host", "connection")
            ],
            "listeners": [
                {
                    "local": "0.0.0.0:80",
                    "process": "nginx:99",
                    "owner": "kernel",
                    "waiting": 100,
                    "limit": 128,
                    "fill": 0.78,
                }
            ],
            "stacks": [
                {
                    "process": "server.py:12345",
                    "port": "af_xdp:enp129s0f0np0",
                    "rx": many,
                    "tx": many,
                    "bits_in": many,
                    "bits_out": many,
                    "burst": 12.5,
                    "completions_a_turn": 3.0,
                    "busy": 0.99,
                    "ns_per_frame": 345.6,
                    "frames_free": 0.875,
                    "connections": 1_000_000,
                    "connections_limit": 2_000_000,
                    "sleeps": 1.0,
                    "stalls": 0.0,
                    "retransmits": 0.0,
                    "drops": 0.0,
                    "age": 0.0,
                }
            ],
            "interfaces": [],
            "timeline": [{"time": time, "kind": "drops", "text": "SOCKET_RCVBUFF " * 9}],
        },
    }
