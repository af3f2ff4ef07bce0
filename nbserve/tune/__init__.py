"""Auto-tune: the settings with the highest throughput that keep a latency goal. Runs in the kernel or the terminal.

`search.py` decides what to measure next, `ramp.py` under which load, and both are pure; `session.py` measures it on
workers of its own.
"""
