"""The processes that run handlers: the nursery, which forks, and the workers."""
