"""Hosts without hardware: network namespaces joined by veth pairs.

Every demo, test and benchmark stands on it. It needs no native code: `import millrace.lab` works
before anything is built. Only an impaired wire takes the native module, for the forwarder in its
middle, and so does `simulate`: networks of our stacks in virtual time.
"""

from millrace.lab.errors import CommandFailed, LabError
from millrace.lab.host import Host
from millrace.lab.impaired import ImpairedWire, Statistics
from millrace.lab.impairment import Impairment
from millrace.lab.lab import TEST_NETWORKS, Lab
from millrace.lab.simulation import Result, Simulation, simulate
from millrace.lab.wire import Interface, Wire

__all__ = [
    "TEST_NETWORKS",
    "CommandFailed",
    "Host",
    "ImpairedWire",
    "Impairment",
    "Interface",
    "Lab",
    "LabError",
    "Result",
    "Simulation",
    "Statistics",
    "Wire",
    "simulate",
]
