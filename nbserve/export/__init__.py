"""From a bundle to a folder that runs anywhere: container image, Kubernetes, Ray Serve. Runs in the kernel or the CLI."""
