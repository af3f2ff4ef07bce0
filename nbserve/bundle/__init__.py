"""The bundle folder: read in every process, loaded in the worker. Writing one is nbserve.capture."""
