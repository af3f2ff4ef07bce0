"""The notebook face: the magics `%%serve` and `%serve` and what they show. Runs in the kernel."""
