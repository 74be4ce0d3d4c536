"""Interrupts are found by device, whatever the driver calls them."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.host.access import Access
from millrace.host.irq import irqs_of, read_irqs

PCI = "/sys/devices/pci0000:00/0000:00:03.0"
INTERRUPTS = """\
            CPU0       CPU2
  9:         50          0  IO-APIC   9-fasteoi   acpi
 37:          1          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config
 38:        100      12336 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 39:       8552          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0
NMI:          0          0   Non-maskable interrupts
"""

VIRTIO = {
    "/sys/class/net/eth0": "-> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0",
    f"{PCI}/virtio2/net/eth0/ifindex": "4",
    f"{PCI}/virtio2/net/eth0/device": "-> ../../../virtio2",
    f"{PCI}/msi_irqs/37": "msix",
    f"{PCI}/msi_irqs/38": "msix",
    f"{PCI}/msi_irqs/39": "msix",
    f"{PCI}/irq": "11",
    "/sys/class/net/lo": "-> ../../devices/virtual/net/lo",
    "/sys/devices/virtual/net/lo/ifindex": "1",
    "/proc/interrupts": INTERRUPTS,
    "/proc/irq/38/smp_affinity_list": "0-2",
    "/proc/irq/38/effective_affinity_list": "2",
}


def test_virtio_has_its_interrupts_in_the_pci_parent(tree: Any) -> None:
    with Access(tree(VIRTIO)) as access:
        config, receive, _transmit = read_irqs(access)
        assert irqs_of(access.files, "lo") == []
    assert config.number == 37
    assert (receive.number, receive.interfaces, receive.label) == (38, ("eth0",), "virtio2-input.0")
    assert receive.counts == {0: 100, 2: 12336}
    assert receive.total == 12436
    assert (receive.affinity, receive.effective) == ((0, 1, 2), (2,))
    assert "No such file" in str(config.affinity)


def test_one_line_interrupt(tree: Any) -> None:
    files = {name: text for name, text in VIRTIO.items() if "msi_irqs" not in name}
    with Access(tree(files)) as access:
        assert irqs_of(access.files, "eth0") == [11]


def test_two_ports_of_one_device_share_them(tree: Any) -> None:
    more = {
        "/sys/class/net/eth1": "-> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth1",
        f"{PCI}/virtio2/net/eth1/ifindex": "5",
        f"{PCI}/virtio2/net/eth1/device": "-> ../../../virtio2",
    }
    with Access(tree(VIRTIO | more)) as access:
        assert {irq.interfaces for irq in read_irqs(access)} == {("eth0", "eth1")}


@pytest.mark.parametrize("text", ["", "garbage", "  CPU0\n 38: x y\n", "\n\n 38: 1 2 3"])
def test_odd_interrupts(tree: Any, text: str) -> None:
    with Access(tree(VIRTIO | {"/proc/interrupts": text})) as access:
        assert [irq.number for irq in read_irqs(access)] == [37, 38, 39]
