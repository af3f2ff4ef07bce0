"""The endpoint $name, version $version, as an application of Ray Serve."""

from pathlib import Path

from nbserve.ray import application

app = application(Path(__file__).parent / "bundle")
