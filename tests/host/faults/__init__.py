"""Faults: each spoils the healthy server of a recording so that one check must say so.

A module for each of `millrace.host.checks`. What lies in them registers itself (`register`), and
none can be forgotten: whatever is in this folder is imported.
"""

import importlib
import pkgutil

from .register import FAULTS, Fault

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["FAULTS", "Fault"]
