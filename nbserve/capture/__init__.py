"""A cell becomes a bundle: everything here runs in the kernel. What a bundle is, and loading it, is nbserve.bundle."""
