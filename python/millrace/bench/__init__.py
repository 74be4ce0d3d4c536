"""Measurements side by side: arms, load, figures, and the ratios they are held against.

`millrace demo` serves HTTP with each arm in turn and loads it with wrk (`millrace.bench.demo`);
`millrace bench stack` joins two stacks without a kernel (`millrace.bench.stack`). Nothing of the
product imports this package.
"""
