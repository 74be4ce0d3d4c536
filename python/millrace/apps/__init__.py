"""Small programs that are examples and workloads at once, written with `millrace.Channel`.

Each has a function `serve(channel, ...)` for programs and a place in `millrace serve`.
"""
