"""The settings that change how a handler's modules compute: applied after initialize. Runs in the worker."""
