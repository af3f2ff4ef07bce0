"""A cell becomes a folder: written in the kernel, read by the server, loaded in the worker."""
