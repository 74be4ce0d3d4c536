"""What tests of `millrace.host` share: copies of /proc and /sys, and a server made of data."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from millrace.host import Snapshot
from millrace.host.checks import Goal
from millrace.host.cpu import Cpu, Cpus, IdleState
from millrace.host.cputime import CpuTime
from millrace.host.doctor import examine
from millrace.host.ethtool import Channels, Coalescing, Device, Driver, Feature, Pause, Rings, Rss
from millrace.host.finding import Finding
from millrace.host.irq import Irq
from millrace.host.links import Address, Link, Neighbour, Qdisc, Route
from millrace.host.memory import Hugepages, Memory, Pressure
from millrace.host.netdev import Napi, QueueCounters
from millrace.host.platform import CAPABILITIES, OPTIONS, Bus, Kernel, Platform, Privileges
from millrace.host.processes import Process, Thread
from millrace.host.queues import ReceiveQueue, TransmitQueue
from millrace.host.snapshot import Origin
from millrace.host.sockets import Socket, SocketMemory
from millrace.host.softnet import SoftnetCpu
from millrace.host.tcp_info import TcpInfo
from millrace.host.unavailable import NotAvailable

# What the tests here share lies beside them: `faults`, `planted`.
sys.path.insert(0, str(Path(__file__).parent))

Tree = Callable[[Mapping[str, str]], Path]

CPUS = range(8)
QUEUES = range(8)
SECONDS = 10.0


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files below a folder that stands for /; a text that begins with "-> " is a link."""

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("-> "):
                path.symlink_to(text[3:])
            else:
                path.write_text(text)
        return tmp_path

    return write


class Server:
    """Two snapshots, ten seconds apart, of a healthy machine with two nodes, and ways to spoil it.

    It has eight cores, a card `eth0` with eight queues on node 0, and one busy web server.
    """

    def __init__(self) -> None:
        self.before = _snapshot(1000.0)
        self.after = _snapshot(1000.0 + SECONDS)
        for cpu in CPUS:
            self.softnet(cpu, processed=20_000)
        self.link_counts(rx_packets=160_000, tx_packets=160_000)
        self.counters(TcpOutSegs=100_000, TcpInSegs=100_000, IpInReceives=160_000)

    def set(self, **parts: Any) -> Server:
        """Give parts of both snapshots."""
        self.before = dataclasses.replace(self.before, **parts)
        self.after = dataclasses.replace(self.after, **parts)
        return self

    def later(self, **parts: Any) -> Server:
        """Give parts of the second snapshot."""
        self.after = dataclasses.replace(self.after, **parts)
        return self

    def counters(self, **counts: int) -> Server:
        """Count in the window."""
        return self.later(counters=_add(self.after.counters, counts))

    def sysctl(self, **values: str | int) -> Server:
        """Give settings, with __ for a dot."""
        changed = {key.replace("__", "."): str(value) for key, value in values.items()}
        return self.set(sysctls={**(self.after.sysctls or {}), **changed})

    def link(self, name: str = "eth0", **changes: Any) -> Server:
        """Change an interface in both snapshots."""
        for which in ("before", "after"):
            snapshot = getattr(self, which)
            links = tuple(
                dataclasses.replace(link, **changes) if link.name == name else link
                for link in snapshot.links
            )
            setattr(self, which, dataclasses.replace(snapshot, links=links))
        return self

    def link_counts(self, name: str = "eth0", **counts: int) -> Server:
        """Count at an interface in the window."""
        links = tuple(
            dataclasses.replace(link, statistics=_add(link.statistics, counts))
            if link.name == name
            else link
            for link in self.after.links or ()
        )
        return self.later(links=links)

    def device(self, **changes: Any) -> Server:
        """Change what the card's driver says."""
        (device,) = self.after.devices or ()
        return self.set(devices=(dataclasses.replace(device, **changes),))

    def features(self, **switches: bool) -> Server:
        """Switch offloads, with _ for -."""
        (device,) = self.after.devices or ()
        found = dict(device.features)
        for name, on in switches.items():
            found[name.replace("_", "-")] = Feature(active=on, changeable=True)
        return self.device(features=found)

    def softnet(self, cpu: int, **counts: int) -> Server:
        """Count on a CPU in the window."""
        rows = tuple(
            dataclasses.replace(
                row, **{name: getattr(row, name) + count for name, count in counts.items()}
            )
            if row.cpu == cpu
            else row
            for row in self.after.softnet or ()
        )
        return self.later(softnet=rows)

    def times(self, cpu: int, **shares: float) -> Server:
        """Say what a CPU spent the window on, as shares of 1."""
        times = dict(self.after.cpu_times or {})
        old = (self.before.cpu_times or {})[cpu]
        idle = 1.0 - sum(shares.values())
        changes = {name: getattr(old, name) + SECONDS * share for name, share in shares.items()}
        times[cpu] = dataclasses.replace(old, idle=old.idle + SECONDS * idle, **changes)
        return self.later(cpu_times=times)

    def softirqs(self, name: str, **runs: int) -> Server:
        """Count softirqs of CPUs (cpu0=...) in the window."""
        found = {kind: dict(row) for kind, row in (self.after.softirqs or {}).items()}
        for cpu, count in runs.items():
            found[name][int(cpu[3:])] += count
        return self.later(softirqs=found)

    def queue_packets(self, *packets: int) -> Server:
        """Count packets of each receive queue in the window."""
        found = tuple(
            dataclasses.replace(
                one, counters=_add(one.counters, {"rx-packets": packets[one.queue]})
            )
            if one.way == "rx"
            else one
            for one in self.after.queue_counters or ()
        )
        return self.later(queue_counters=found)

    def receive_queues(self, **changes: Any) -> Server:
        """Change every receive queue."""
        found = tuple(
            dataclasses.replace(one, **changes) for one in self.after.receive_queues or ()
        )
        return self.set(receive_queues=found)

    def irqs(self, cpus: Callable[[int], int]) -> Server:
        """Send the n-th interrupt to a CPU, and count it there."""
        for which, times in (("before", 1), ("after", 2)):
            snapshot = getattr(self, which)
            found = tuple(
                dataclasses.replace(
                    irq,
                    affinity=(cpus(at),),
                    effective=(cpus(at),),
                    counts={cpu: 5000 * times * (cpu == cpus(at)) for cpu in CPUS},
                )
                for at, irq in enumerate(snapshot.irqs)
            )
            setattr(self, which, dataclasses.replace(snapshot, irqs=found))
        return self

    def sockets(self, *sockets: Socket) -> Server:
        """More sockets, in both snapshots."""
        return self.set(sockets=(*(self.after.sockets or ()), *sockets))

    def thread(self, share: float = 0.0, migrations: int = 0, **changes: Any) -> Server:
        """Change the web server's thread; `share` of a CPU and moves are of the window."""
        for which, times in (("before", 0), ("after", 1)):
            snapshot = getattr(self, which)
            (process,) = snapshot.processes
            thread = dataclasses.replace(process.threads[0], **changes)
            thread = dataclasses.replace(
                thread,
                seconds=thread.seconds + times * share * SECONDS,
                migrations=times * migrations,
            )
            process = dataclasses.replace(process, threads=(thread, *process.threads[1:]))
            setattr(self, which, dataclasses.replace(snapshot, processes=(process,)))
        return self

    def cpus(self, **changes: Any) -> Server:
        """Change what holds for all CPUs."""
        return self.set(cpus=dataclasses.replace(self.after.cpus, **changes))

    def each_cpu(self, **changes: Any) -> Server:
        """Change every CPU."""
        found = self.after.cpus
        return self.cpus(cpus=tuple(dataclasses.replace(one, **changes) for one in found.cpus))

    def memory(self, **changes: Any) -> Server:
        """Change what holds for memory."""
        return self.set(memory=dataclasses.replace(self.after.memory, **changes))

    def origin(self, **changes: Any) -> Server:
        """Change who looks."""
        self.before = dataclasses.replace(
            self.before, origin=dataclasses.replace(self.before.origin, **changes)
        )
        return self.later(origin=dataclasses.replace(self.after.origin, **changes))

    def examine(self, *checks: str, goal: Goal = Goal.NONE, **options: Any) -> list[Finding]:
        """What checks find; all of them by default."""
        found = examine([self.before, self.after], goal=goal, checks=checks or None, **options)
        return list(found.findings)


@pytest.fixture
def server() -> Server:
    """A healthy machine."""
    return Server()


@pytest.fixture
def make_socket() -> Callable[..., Socket]:
    """Makes sockets of the server's."""
    return socket_of


def socket_of(cookie: int = 100, **changes: Any) -> Socket:
    """An established connection of the server's, or what else the changes make of it."""
    plain = Socket(
        protocol="tcp",
        family=4,
        state="established",
        local="192.0.2.1",
        local_port=80,
        remote="192.0.2.9",
        remote_port=40_000 + cookie,
        index=0,
        inode=cookie,
        uid=0,
        cookie=cookie,
        receive_queue=0,
        send_queue=0,
        memory=SocketMemory(0, 131_072, 0, 87_040, 0, 0, 0, 0, 0),
        info=info_of(),
        congestion="cubic",
    )
    return dataclasses.replace(plain, **changes)


def info_of(**changes: Any) -> TcpInfo:
    """A connection's tcp_info, all zero but what is said."""
    empty = TcpInfo(*[0] * len(TcpInfo.__slots__))
    return dataclasses.replace(empty, state=1, delivery_rate_app_limited=False, **changes)


def _add(counts: Any, more: Mapping[str, int]) -> dict[str, int]:
    return {**counts, **{name: counts.get(name, 0) + count for name, count in more.items()}}


def _snapshot(clock: float) -> Snapshot:
    origin = Origin(
        time=1.7e9 + clock,
        clock=clock,
        seconds=0.05,
        host="server",
        kernel="6.18.0",
        machine="x86_64",
        uid=0,
        namespace=1,
        initial_namespace=True,
        boot="boot",
        millrace="0",
    )
    return Snapshot(
        origin=origin,
        links=(_link("lo", 1, flags=0x49, mtu=65536), _link("eth0", 2)),
        addresses=(
            Address(1, 4, "127.0.0.1", 8, 128),
            Address(2, 4, "192.0.2.1", 24, 128),
        ),
        routes=(
            Route(4, "default", "192.0.2.254", 2, 0, "", 0),
            Route(4, "192.0.2.0/24", "", 2, 0, "192.0.2.1", 0),
        ),
        neighbours=(Neighbour(2, 4, "192.0.2.254", "02:00:00:00:00:fe", "reachable"),),
        neighbour_counters={"arp.entries": 5, "arp.table_fulls": 0, "nd.entries": 0},
        qdiscs=(Qdisc(2, "mq", 0, 0xFFFFFFFF, 0, 0, 0, 0, 0, 0, 0),),
        devices=(_device(),),
        buses=(Bus("eth0", "0000:03:00.0", 0, "8.0 GT/s PCIe", "8.0 GT/s PCIe", 8, 8),),
        xdp_features={2: ("basic", "redirect", "ndo-xmit", "xsk-zerocopy")},
        napis=tuple(Napi(100 + queue, 2, 60 + queue, 0, False, 0, 0, 0) for queue in QUEUES),
        queue_counters=tuple(
            QueueCounters(2, way, queue, 100 + queue, {f"{way}-packets": 1000})
            for way in ("rx", "tx")
            for queue in QUEUES
        ),
        receive_queues=tuple(ReceiveQueue("eth0", queue, (), 0) for queue in QUEUES),
        transmit_queues=tuple(
            TransmitQueue("eth0", queue, (queue,), 0, 0, 0, NotAvailable("no stalls"))
            for queue in QUEUES
        ),
        irqs=tuple(
            Irq(
                60 + queue,
                ("eth0",),
                f"ice-eth0-TxRx-{queue}",
                {cpu: int(clock) * 100 * (cpu == queue % 4) for cpu in CPUS},
                (queue % 4,),
                (queue % 4,),
            )
            for queue in QUEUES
        ),
        softnet=tuple(SoftnetCpu(cpu, 10_000, 0, 0, 0, 0, 0) for cpu in CPUS),
        softirqs={
            name: dict.fromkeys(CPUS, int(clock) * 10) for name in ("NET_RX", "NET_TX", "TIMER")
        },
        cpus=_cpus(),
        cpu_times={cpu: CpuTime(clock * 0.2, 0, clock * 0.1, clock * 0.65, 0, 0, clock * 0.05, 0)
                   for cpu in CPUS},
        memory=Memory(
            total=64 << 30,
            available=48 << 30,
            swap_total=4 << 30,
            swap_free=4 << 30,
            hugepages=(Hugepages(-1, 2 << 20, 256, 200), Hugepages(0, 2 << 20, 256, 200),
                       Hugepages(1, 2 << 20, 0, 0)),
            transparent_hugepages="madvise",
            page_bytes=4096,
        ),
        pressure={
            "cpu": Pressure(0.0, int(clock * 10_000), 0.0),
            "memory": Pressure(0.0, 0, 0.0),
            "io": Pressure(0.0, 0, 0.0),
        },
        sysctls=dict(SYSCTLS),
        counters=dict.fromkeys(COUNTERS, 1000),
        sockstat={"TCP.inuse": 2, "TCP.tw": 10, "TCP.mem": 10, "TCP.orphan": 0, "UDP.mem": 1,
                  "FRAG.memory": 0},
        conntrack={"drop": 0, "early_drop": 0, "insert_failed": 0},
        sockets=(
            socket_of(1, state="listen", remote="0.0.0.0", remote_port=0, local="0.0.0.0",
                      inode=501, send_queue=4096, info=None),
            socket_of(2, inode=502, info=info_of(min_rtt=100, rtt=150, delivery_rate=10_000_000)),
        ),
        time_waits=(),
        processes=(
            Process(
                pid=812,
                name="nginx",
                inodes=(501, 502),
                threads=(_thread(812, "nginx"),),
                locked=0,
                locked_limit=None,
                files=40,
                files_limit=65_536,
            ),
        ),
        kernel_threads=tuple(_thread(10 + cpu, f"ksoftirqd/{cpu}", (cpu,)) for cpu in CPUS),
        services={},
        kernel=Kernel("6.18.0", "quiet", dict.fromkeys(OPTIONS, "y"), True),
        platform=Platform("", "Server"),
        privileges=Privileges(0, tuple(CAPABILITIES), None, 65_536),
        own=NotAvailable("no Millrace process publishes its figures"),
        drops=NotAvailable("nothing counts drops by reason"),
    )  # fmt: skip


def _link(name: str, index: int, **changes: Any) -> Link:
    plain = Link(
        name=name,
        index=index,
        kind="",
        mac="02:00:00:00:00:01",
        mtu=1500,
        min_mtu=68,
        max_mtu=9702,
        flags=0x1043,
        operstate="up",
        carrier=True,
        carrier_changes=2,
        txqlen=1000,
        rx_queues=8,
        tx_queues=8,
        qdisc="mq",
        master=0,
        lower=0,
        lower_namespace=None,
        gso_max_size=65536,
        gro_max_size=65536,
        xdp="",
        statistics={
            "rx_packets": 100_000,
            "tx_packets": 100_000,
            "rx_dropped": 5,
            "rx_missed_errors": 3,
            "rx_fifo_errors": 0,
            "rx_over_errors": 0,
            "rx_crc_errors": 1,
            "rx_frame_errors": 0,
            "rx_length_errors": 0,
        },
    )
    return dataclasses.replace(plain, **changes)


def _device() -> Device:
    on = ("rx-checksum", "tx-checksum-ip-generic", "tx-scatter-gather", "tx-tcp-segmentation",
          "tx-tcp6-segmentation", "tx-generic-segmentation", "rx-gro", "rx-hashing")  # fmt: skip
    features = {name: Feature(True, True) for name in on}
    features |= {name: Feature(False, True) for name in ("rx-lro", "rx-ntuple-filter")}
    return Device(
        name="eth0",
        driver=Driver("ice", "6.18", "4.0", "0000:03:00.0"),
        rings=Rings(rx=512, rx_max=8160, tx=512, tx_max=8160),
        channels=Channels(0, 0, 0, 0, 8, 16),
        coalescing=Coalescing(50, None, 50, None, True, True),
        features=features,
        rss=Rss(1, tuple(at % 8 for at in range(128)), "6d5a" * 26),
        pause=Pause(False, False, False),
        speed=25_000,
        clock=0,
        statistics={"rx_dropped.nic": 0, "rx_alloc_fail.nic": 0, "port.rx_crc_errors": 1},
    )


def _cpus() -> Cpus:
    return Cpus(
        cpus=tuple(
            Cpu(
                number=cpu,
                node=cpu // 4,
                package=cpu // 4,
                core=cpu % 4,
                siblings=(cpu,),
                idle_states=(IdleState("POLL", 0, False), IdleState("C1", 2, False),
                             IdleState("C6", 170, False)),
                governor="performance",
                energy_preference="performance",
            )
            for cpu in CPUS
        ),
        model="A CPU",
        last_level_cache=96 << 20,
        isolated=(),
        nohz_full=(),
        smt_active=False,
        idle_driver="intel_idle",
        frequency_driver="intel_pstate",
        boost=True,
        clocksource="tsc",
        clocksources=("tsc", "hpet", "acpi_pm"),
        vulnerabilities={"spectre_v2": "Mitigation: IBRS", "meltdown": "Not affected"},
    )  # fmt: skip


def _thread(tid: int, name: str, allowed: tuple[int, ...] = tuple(CPUS)) -> Thread:
    return Thread(tid, tid, name, allowed, allowed[0], 10.0, 0, 0, "other")


SYSCTLS = {
    "net.core.netdev_budget": "300",
    "net.core.netdev_budget_usecs": "8000",
    "net.core.netdev_max_backlog": "1000",
    "net.core.rps_sock_flow_entries": "0",
    "net.core.busy_poll": "0",
    "net.core.busy_read": "0",
    "net.core.default_qdisc": "fq_codel",
    "net.core.somaxconn": "4096",
    "net.core.rmem_max": "4194304",
    "net.core.rmem_default": "212992",
    "net.core.wmem_max": "4194304",
    "net.ipv4.tcp_mem": "762720 1016962 1525440",
    "net.ipv4.udp_mem": "1525443 2033925 3050886",
    "net.ipv4.tcp_max_orphans": "262144",
    "net.ipv4.neigh.default.gc_thresh2": "512",
    "net.ipv4.neigh.default.gc_thresh3": "1024",
    "net.ipv6.neigh.default.gc_thresh2": "512",
    "net.ipv6.neigh.default.gc_thresh3": "1024",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.ipv4.ipfrag_high_thresh": "4194304",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.all.arp_ignore": "0",
    "net.ipv4.conf.all.arp_filter": "0",
    "net.ipv4.tcp_abort_on_overflow": "0",
    "net.ipv4.tcp_available_congestion_control": "reno cubic dctcp",
    "net.ipv4.tcp_congestion_control": "cubic",
    "net.ipv4.tcp_fastopen": "1",
    "net.ipv4.tcp_max_tw_buckets": "262144",
    "net.ipv4.tcp_moderate_rcvbuf": "1",
    "net.ipv4.tcp_mtu_probing": "0",
    "net.ipv4.tcp_notsent_lowat": "4294967295",
    "net.ipv4.tcp_rmem": "4096 131072 33554432",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.tcp_sack": "1",
    "net.ipv4.tcp_slow_start_after_idle": "1",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.tcp_timestamps": "1",
    "net.ipv4.tcp_window_scaling": "1",
    "net.netfilter.nf_conntrack_count": "100",
    "net.netfilter.nf_conntrack_max": "262144",
    "kernel.numa_balancing": "1",
    "kernel.nmi_watchdog": "1",
    "kernel.timer_migration": "1",
    "kernel.sched_rt_runtime_us": "950000",
    "vm.stat_interval": "1",
    "vm.swappiness": "60",
    "net/ipv4/conf/eth0/rp_filter": "0",
}

COUNTERS = (
    "IpInReceives", "IpInHdrErrors", "IpInAddrErrors", "IpReasmFails", "IpReasmTimeout",
    "IpFragFails", "IpOutNoRoutes", "IcmpInCsumErrors", "IcmpOutDestUnreachs",
    "IcmpOutTimeExcds", "TcpPassiveOpens", "TcpInSegs", "TcpOutSegs", "TcpRetransSegs",
    "TcpOutRsts", "TcpInErrs", "TcpInCsumErrors", "UdpInDatagrams", "UdpNoPorts",
    "UdpRcvbufErrors", "UdpSndbufErrors", "UdpMemErrors", "UdpInCsumErrors",
    "TcpExtListenOverflows", "TcpExtListenDrops", "TcpExtTCPReqQFullDrop",
    "TcpExtTCPReqQFullDoCookies", "TcpExtSyncookiesFailed", "TcpExtPruneCalled",
    "TcpExtRcvPruned", "TcpExtTCPBacklogDrop", "TcpExtTCPTimeouts", "TcpExtTCPSynRetrans",
    "TcpExtTCPTimeWaitOverflow", "TcpExtIPReversePathFilter", "TcpExtTCPToZeroWindowAdv",
    "TcpExtTCPAbortOnMemory", "TcpExtTCPMTUPFail", "IpExtInNoRoutes", "IpExtInCsumErrors",
)  # fmt: skip
