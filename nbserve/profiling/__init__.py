"""Profiles of a running endpoint, and proofs of what they propose. Runs in the kernel or the terminal.

Nothing is imported here: the load generator is a process of its own that needs little of it.
"""
