"""What this user and this kernel may do, and where the machine runs."""

from __future__ import annotations

from millrace.host.checks.table import Context, Outcomes, check, info, ok
from millrace.host.finding import HOST, NAMESPACE, Layer
from millrace.host.platform import CAPABILITIES, OPTIONS
from millrace.host.unavailable import known


@check(
    "capabilities",
    Layer.PLATFORM,
    64,
    NAMESPACE,
    why="What this user may not do, Millrace cannot do for him.",
    source="capabilities(7)",
)
def capabilities(context: Context) -> Outcomes:
    """The capabilities that this process lacks, and what each would unlock."""
    mine = known(context.now.privileges)
    lacking = [name for name in CAPABILITIES if name not in mine.capabilities]
    if lacking and mine.uid != 0:
        unlocks = "; ".join(f"{name}: {CAPABILITIES[name][1]}" for name in lacking[:10])
        yield info(f"not root. Missing {unlocks}", advice="run as root, or give the capabilities")
    else:
        yield ok(f"{len(mine.capabilities)} of {len(CAPABILITIES)} capabilities")


@check(
    "blind-spots",
    Layer.PLATFORM,
    64,
    NAMESPACE,
    why="What was not read was not judged.",
    source="the snapshot itself",
)
def blind_spots(context: Context) -> Outcomes:
    """Parts of the snapshot that could not be read, and what would make them readable."""
    # These two only exist while something else runs; their checks say so.
    missing = {
        name: reading
        for name, reading in context.now.missing().items()
        if name not in ("own", "drops")
    }
    needed = sorted({reading.needs for reading in missing.values() if reading.needs})
    if missing:
        told = "; ".join(f"{name.replace('_', ' ')} ({one.why})" for name, one in missing.items())
        yield info(
            f"not read: {told}",
            advice=f"run with {', '.join(needed)}" if needed else "",
        )
    else:
        yield ok("every part was read")


@check(
    "kernel-options",
    Layer.PLATFORM,
    64,
    HOST,
    why="A part of Millrace does not work on a kernel that was built without these.",
    source="/proc/config.gz",
)
def kernel_options(context: Context) -> Outcomes:
    """Kernel options that a part of Millrace needs and this kernel does not have."""
    kernel = known(context.now.kernel)
    missing = [name for name, value in known(kernel.options).items() if value == "n"]
    if missing:
        told = "; ".join(f"{name}: {OPTIONS[name]}" for name in missing if name in OPTIONS)
        yield info(f"{kernel.release} is built without {told}")
    else:
        yield ok(f"{kernel.release} has all of them")


@check(
    "virtual-machine",
    Layer.PLATFORM,
    59,
    HOST,
    why="In a virtual machine power, sleep and neighbours are its host's affair, and an interrupt "
    "from one CPU to another leaves the guest.",
    source="/proc/cpuinfo, the hypervisor flag",
)
def virtual_machine(context: Context) -> Outcomes:
    """Whether this is a virtual machine, and of which hypervisor."""
    platform = known(context.now.platform)
    if platform.hypervisor:
        name = " ".join(filter(None, (platform.hypervisor, platform.product)))
        yield info(f"a virtual machine, hypervisor {name}")
    else:
        yield ok("no hypervisor")
