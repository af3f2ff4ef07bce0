"""From what a recording left to a profile: parse, stitch, diagnose, draw. Pure; runs in the kernel or the terminal."""
