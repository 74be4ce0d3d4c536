"""The settings of the network, the scheduler and memory that bear on packets."""

from __future__ import annotations

from collections.abc import Mapping

from millrace.host.access import Access
from millrace.host.unavailable import NotAvailable, Reading

#: Settings that the whole machine shares. Other network namespaces do not show them, or only to be
#: read.
HOST_WIDE = (
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.netfilter.nf_conntrack_max",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.netdev_max_backlog",
    "net.core.dev_weight",
    "net.core.rps_sock_flow_entries",
    "net.core.flow_limit_cpu_bitmap",
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.default_qdisc",
    "net.core.netdev_tstamp_prequeue",
    "net.core.bpf_jit_enable",
    "net.ipv4.tcp_mem",
    "net.ipv4.udp_mem",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.neigh.default.gc_thresh2",
    "net.ipv6.neigh.default.gc_thresh3",
)

#: Settings that each network namespace has for itself.
OF_NAMESPACE = (
    "net.core.somaxconn",
    "net.core.optmem_max",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.ipfrag_high_thresh",
    "net.ipv4.ipfrag_time",
    "net.ipv4.icmp_ratelimit",
    "net.ipv4.icmp_ratemask",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.conf.all.arp_filter",
    "net.ipv4.conf.all.log_martians",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_adv_win_scale",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_moderate_rcvbuf",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_wmem",
    "net.ipv4.udp_rmem_min",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_count",
)

#: Settings outside the network.
OF_MACHINE = (
    "kernel.hung_task_timeout_secs",
    "kernel.nmi_watchdog",
    "kernel.numa_balancing",
    "kernel.sched_rt_runtime_us",
    "kernel.sched_rt_period_us",
    "kernel.timer_migration",
    "kernel.unprivileged_bpf_disabled",
    "kernel.perf_event_paranoid",
    "vm.dirty_background_ratio",
    "vm.dirty_ratio",
    "vm.nr_hugepages",
    "vm.stat_interval",
    "vm.swappiness",
    "fs.file-max",
    "fs.nr_open",
)

#: Settings of each interface, below net.ipv4.conf.
OF_INTERFACE = ("rp_filter", "arp_ignore", "arp_announce", "accept_local", "forwarding")


def read_sysctls(access: Access) -> Mapping[str, Reading[str]]:
    """All settings that a check or a policy looks at."""
    found: dict[str, Reading[str]] = {}
    inside = access.files.exists(path_of("net.core.netdev_max_backlog"))
    for key in (*HOST_WIDE, *OF_NAMESPACE, *OF_MACHINE):
        value = _value(access, key)
        if isinstance(value, NotAvailable) and key in HOST_WIDE and not inside and not value.needs:
            value = NotAvailable(
                f"{key} is the whole machine's: only its own network namespace shows it",
                "the machine's own network namespace",
            )
        found[key] = value
    for name in access.interfaces():
        for setting in OF_INTERFACE:
            # With slashes, because an interface's name may hold dots (sysctl(8)).
            key = f"net/ipv4/conf/{name}/{setting}"
            found[key] = _value(access, key)
    return found


def path_of(key: str) -> str:
    """The file of a setting, whose parts are joined by dots or by slashes. Raises `ValueError`."""
    parts = key.split("/") if "/" in key else key.split(".")
    if not all(parts) or any(part in (".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{key!r} is no name of a sysctl")
    return "/proc/sys/" + "/".join(parts)


def _value(access: Access, key: str) -> Reading[str]:
    text = access.files.text(path_of(key))
    if isinstance(text, NotAvailable):
        return text if text.needs else NotAvailable(f"this kernel has no {key} here")
    return " ".join(text.split())
