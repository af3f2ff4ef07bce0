"""The debugger's half in the worker: an agent that listens, pdb over a socket, stops, stacks."""
