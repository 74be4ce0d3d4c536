"""Plans follow their goal, the CPUs they are given, and what the machine has."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from millrace.host import NotAvailable
from millrace.host.checks import Goal
from millrace.host.cpu import IdleState
from millrace.host.ethtool import Channels, Coalescing, Rings
from millrace.host.own import OwnChannel
from millrace.host.platform import Kernel
from millrace.host.queues import ReceiveQueue
from millrace.host.tune import Plan, Policy, make_plan, owner_of, plan_of_findings


def writes(plan: Plan) -> dict[str, tuple[str, str]]:
    return {write.target: (write.old, write.new) for write in plan.writes}


def by_hand(plan: Plan) -> str:
    return "\n".join(one.what for one in plan.advice)


def test_latency(server: Any) -> None:
    server.device(rings=Rings(8160, 8160, 512, 8160))
    server.each_cpu(governor="powersave", idle_states=(IdleState("C6", 170, False),))
    plan = make_plan(server.after, "eth0", Goal.LATENCY)
    found = writes(plan)
    assert found["coalesce:eth0:adaptive-rx"] == ("on", "off")
    assert found["coalesce:eth0:rx-usecs"] == ("50", "0")
    assert found["ring:eth0:rx"] == ("8160", "512")
    assert found["sysctl:net.core.busy_read"] == ("0", "50")
    assert found["sysctl:net.ipv4.tcp_fastopen"] == ("1", "3")
    assert found["sysctl:kernel.nmi_watchdog"] == ("1", "0")
    assert found["file:/sys/kernel/mm/transparent_hugepage/enabled"] == ("madvise", "never")
    base = "file:/sys/devices/system/cpu/cpu0"
    assert found[f"{base}/cpufreq/scaling_governor"] == ("powersave", "performance")
    assert found[f"{base}/power/pm_qos_resume_latency_us"] == ("0", "10")
    # Without names it does not guess how many queues the programs want.
    assert not any(target.startswith("channels:") for target in found)
    assert "skew_tick=1 tsc=reliable" in by_hand(plan)
    assert all(write.why for write in plan.writes)


def test_throughput(server: Any) -> None:
    server.device(
        rings=Rings(256, 8160, 512, 8160),
        channels=Channels(0, 0, 0, 0, 2, 16),
        coalescing=Coalescing(0, None, 0, None, False, False),
    )
    server.features(tx_tcp_segmentation=False)
    found = writes(make_plan(server.after, "eth0", Goal.THROUGHPUT, policy=Policy.SPREAD))
    assert found["ring:eth0:rx"] == ("256", "1024")
    assert found["channels:eth0:combined"] == ("2", "8")
    assert found["coalesce:eth0:adaptive-rx"] == ("off", "on")
    assert found["offload:eth0:tso"][1] == "tx-tcp-segmentation=on tx-tcp6-segmentation=on"
    assert found["sysctl:net.ipv4.tcp_slow_start_after_idle"] == ("1", "0")
    # What is larger already stays.
    assert "sysctl:net.core.somaxconn" not in found
    assert "sysctl:net.ipv4.tcp_rmem" not in found
    assert found["sysctl:net.ipv4.tcp_wmem"] == ("4096 16384 4194304", "4096 16384 16777216")


def test_overload(server: Any) -> None:
    server.sysctl(
        net__ipv4__tcp_syncookies=0, net__core__busy_read=50, net__core__flow_limit_cpu_bitmap="0"
    )
    server.device(rings=Rings(8160, 8160, 512, 8160))
    found = writes(make_plan(server.after, "eth0", Goal.OVERLOAD))
    assert found["sysctl:net.ipv4.tcp_syncookies"] == ("0", "1")
    assert found["sysctl:net.core.busy_read"] == ("50", "0")
    assert found["sysctl:net.core.flow_limit_cpu_bitmap"] == ("0", "ff")
    assert found["file:/sys/class/net/eth0/threaded"] == ("0", "1")
    assert found["ring:eth0:rx"][1] == "512"


def test_interrupts_stay_on_the_devices_node(server: Any) -> None:
    server.irqs(lambda at: 4 + at % 4)
    found = writes(make_plan(server.after, "eth0", Goal.THROUGHPUT))
    cpus = [found[f"file:/proc/irq/{60 + at}/smp_affinity_list"][1] for at in range(8)]
    assert cpus == ["0", "1", "2", "3", "0", "1", "2", "3"]


def test_interrupts_spread_over_everything(server: Any) -> None:
    server.irqs(lambda _: 0).cpus(isolated=(7,))
    plan = make_plan(server.after, "eth0", Goal.THROUGHPUT, policy=Policy.SPREAD)
    found = writes(plan)
    cpus = [found.get(f"file:/proc/irq/{60 + at}/smp_affinity_list", ("", "0"))[1]
            for at in range(8)]  # fmt: skip
    assert cpus == ["0", "1", "2", "3", "4", "5", "6", "0"]


def test_given_cpus(server: Any) -> None:
    plan = make_plan(server.after, "eth0", Goal.LATENCY, cpus="6-7")
    found = writes(plan)
    assert found["channels:eth0:combined"] == ("8", "2")
    assert found["file:/proc/irq/60/smp_affinity_list"] == ("0", "6")
    assert "isolcpus=managed_irq,domain,6-7 nohz_full=6-7 rcu_nocbs=6-7" in by_hand(plan)


def test_kernel_parameters_that_are_there_are_not_asked_for(server: Any) -> None:
    line = "skew_tick=1 tsc=reliable rcupdate.rcu_normal_after_boot=1"
    server.set(kernel=Kernel("6.18", line, {}, True))
    assert "kernel parameters" not in by_hand(make_plan(server.after, "eth0", Goal.LATENCY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": "9"}, "this machine has CPU 0-7, not 9"),
        ({"cpus": "x"}, "no list such as 0-3,8"),
        ({"cpus": ""}, "this machine has CPU 0-7"),
        ({"policy": Policy.CPUS}, "needs --cpus"),
        ({"owner": "nobody"}, "kernel or millrace, not 'nobody'"),
    ],
)
def test_wishes_that_cannot_be(server: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(server.after, "eth0", Goal.LATENCY, **options)


def test_an_interface_or_goal_that_is_none(server: Any) -> None:
    with pytest.raises(ValueError, match="no interface 'eth9'; there is lo, eth0"):
        make_plan(server.after, "eth9", Goal.LATENCY)
    with pytest.raises(ValueError, match="a plan needs a goal"):
        make_plan(server.after, "eth0", Goal.NONE)


def test_irqbalance_is_stopped_first(server: Any) -> None:
    server.set(services={"irqbalance": 55}).irqs(lambda _: 0)
    plan = make_plan(server.after, "eth0", Goal.THROUGHPUT)
    names = [write.target for write in plan.writes]
    assert names.index("service:irqbalance") < names.index("file:/proc/irq/61/smp_affinity_list")


def single_queue(server: Any) -> Any:
    server.device(channels=NotAvailable("none"))
    server.set(receive_queues=(ReceiveQueue("eth0", 0, (), 0),), irqs=(server.after.irqs[0],))
    return server.link(rx_queues=1)


def test_one_queue_gets_rps_and_rfs_for_throughput(server: Any) -> None:
    single_queue(server)
    found = writes(make_plan(server.after, "eth0", Goal.THROUGHPUT))
    # scaling.rst: the CPU that is interrupted is left out.
    assert found["file:/sys/class/net/eth0/queues/rx-0/rps_cpus"] == ("0", "e")
    assert found["sysctl:net.core.rps_sock_flow_entries"] == ("0", "32768")
    assert found["file:/sys/class/net/eth0/queues/rx-0/rps_flow_cnt"] == ("0", "32768")


def test_one_queue_gets_no_rps_for_latency(server: Any) -> None:
    single_queue(server).receive_queues(rps_cpus=(1, 2))
    found = writes(make_plan(server.after, "eth0", Goal.LATENCY))
    assert found["file:/sys/class/net/eth0/queues/rx-0/rps_cpus"] == ("6", "0")
    assert "sysctl:net.core.rps_sock_flow_entries" not in found


def test_rps_is_taken_from_a_device_with_enough_queues(server: Any) -> None:
    server.receive_queues(rps_cpus=(1,))
    found = writes(make_plan(server.after, "eth0", Goal.THROUGHPUT))
    assert found["file:/sys/class/net/eth0/queues/rx-5/rps_cpus"] == ("2", "0")


def test_xps_gives_each_cpu_a_queue(server: Any) -> None:
    server.set(
        transmit_queues=tuple(
            dataclasses.replace(one, xps_cpus=()) for one in server.after.transmit_queues
        )
    )
    found = writes(make_plan(server.after, "eth0", Goal.THROUGHPUT))
    assert found["file:/sys/class/net/eth0/queues/tx-3/xps_cpus"] == ("0", "8")


def test_a_port_of_ours_sees_frames_as_they_came(server: Any) -> None:
    server.features(rx_lro=True)
    server.set(own=(OwnChannel(9, "echo", "af_xdp:eth0", 1, 1, {}),))
    assert owner_of(server.after, "eth0") == "millrace"
    assert owner_of(server.after, "eth1") == "kernel"
    found = writes(make_plan(server.after, "eth0", Goal.LATENCY, owner="millrace"))
    assert found["offload:eth0:lro"] == ("rx-lro=on", "rx-lro=off")


def test_a_namespace_gets_advice_for_what_is_the_machines(server: Any) -> None:
    server.origin(initial_namespace=False)
    gone = NotAvailable("net.core.busy_read is the whole machine's: only ...")
    server.set(sysctls={**server.after.sysctls, "net.core.busy_read": gone})
    plan = make_plan(server.after, "eth0", Goal.LATENCY)
    for write in plan.writes:
        assert not write.target.startswith(("sysctl:vm", "sysctl:kernel", "file:/proc/irq"))
    assert "sysctl -w net.core.busy_read=50  (the whole machine's" in by_hand(plan)
    assert "sysctl -w vm.swappiness=10  (the whole machine's" in by_hand(plan)


def test_findings_become_a_plan(server: Any) -> None:
    server.features(rx_gro=False).softnet(1, dropped=3000)
    plan = plan_of_findings(server.after, server.examine("gro", "softnet-drops"))
    assert set(writes(plan)) == {"offload:eth0:gro", "sysctl:net.core.netdev_max_backlog"}
    assert plan.title == "mend softnet-drops, gro" or plan.title == "mend gro, softnet-drops"
    assert all(":" in write.why for write in plan.writes)
    nothing = plan_of_findings(server.before, [])
    assert (nothing.writes, nothing.title) == ((), "mend nothing")
