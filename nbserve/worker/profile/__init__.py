"""Records what a worker does, batch by batch, when it is asked to. Runs in the worker."""
