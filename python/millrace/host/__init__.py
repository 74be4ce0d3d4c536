"""The machine as data, what is wrong with its network path, and how to mend that.

`Observer` takes snapshots; two of them subtract to rates. `examine` runs the checks of `millrace
doctor` on them, `plan` and `apply` are `millrace tune`. It is Python throughout and needs nothing
of Millrace's own data path.
"""

from millrace.host.rates import Rates
from millrace.host.snapshot import PARTS, Observer, Snapshot, load, save
from millrace.host.unavailable import NotAvailable, Reading, Unavailable, known

__all__ = [
    "PARTS",
    "NotAvailable",
    "Observer",
    "Rates",
    "Reading",
    "Snapshot",
    "Unavailable",
    "known",
    "load",
    "save",
]
