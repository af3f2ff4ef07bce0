"""Load on an endpoint, from a process of its own: `python -m nbserve.load`."""
