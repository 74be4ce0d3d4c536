"""Hosts without hardware: network namespaces joined by veth pairs.

Every demo, test and benchmark stands on it. It needs no native code: `import millrace.lab` works
before anything is built.
"""

from millrace.lab.errors import CommandFailed, LabError
from millrace.lab.host import Host
from millrace.lab.lab import TEST_NETWORKS, Lab
from millrace.lab.wire import Interface, Wire

__all__ = ["TEST_NETWORKS", "CommandFailed", "Host", "Interface", "Lab", "LabError", "Wire"]
