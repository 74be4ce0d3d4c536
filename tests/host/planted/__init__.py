"""Faults planted for real: the doctor names each, and mending it takes the finding away.

Where a write mends it, `tune` does it, and taking that back brings the finding back. Otherwise it
is mended by hand, as the finding advises. Nothing of the machine's own is changed.
"""
