"""From a bundle to a folder that runs anywhere: an image, Kubernetes, Ray Serve. Runs in the kernel or the CLI."""
