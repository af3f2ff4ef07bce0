"""Which builder is taken, and how it is called. Programs of these names that say what the real ones say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbserve.errors import ExportError
from nbserve.export.builders import Builder, find_builder, size_of
from nbserve.export.pipsettings import PipSettings

NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
NOT_MINE = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
CERTIFICATE = Path("/etc/ssl/ca.crt")
PIP = PipSettings("", (CERTIFICATE, Path("/opt/wheels")), certificate=CERTIFICATE)


class Programs:
    """A PATH with nothing on it but these."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environ = {"PATH": str(folder)}

    def add(self, name: str, code: int = 0, error: str = "") -> None:
        program = self._folder / name
        program.write_text(f"#!/bin/sh\necho {error!r} >&2\nexit {code}\n")
        program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def test_docker_comes_first_and_one_that_does_not_work_is_passed_over(programs: Programs) -> None:
    for name in ("buildah", "podman"):
        programs.add(name)
    assert find_builder(programs.environ).name == "podman"
    programs.add("docker", 1, NO_DAEMON)
    assert find_builder(programs.environ).name == "podman"
    programs.add("docker")
    assert find_builder(programs.environ).name == "docker"


def test_a_builder_that_is_named_is_taken_with_its_options(programs: Programs) -> None:
    programs.add("docker")
    programs.add("buildah")
    builder = find_builder({**programs.environ, "NBSERVE_BUILDER": "buildah --root '/my storage'"})
    assert builder == Builder("buildah", (f"{programs.environ['PATH']}/buildah", "--root", "/my storage"))


@pytest.mark.parametrize("named", ["kaniko", "", " "])
def test_what_is_no_builder_is_refused_or_nothing_is_named(programs: Programs, named: str) -> None:
    programs.add("docker")
    environ = {**programs.environ, "NBSERVE_BUILDER": named}
    if named.strip():
        with pytest.raises(ExportError, match="NBSERVE_BUILDER is 'kaniko'; it can be docker, podman, buildah"):
            find_builder(environ)
    else:
        assert find_builder(environ).name == "docker"


def test_a_named_builder_that_is_missing_or_broken_is_not_replaced_in_silence(programs: Programs) -> None:
    programs.add("podman")
    with pytest.raises(ExportError, match="names docker, which is not installed here"):
        find_builder({**programs.environ, "NBSERVE_BUILDER": "docker"})
    programs.add("docker", 1, NO_DAEMON)
    with pytest.raises(ExportError, match="does not work here: Cannot connect to the Docker daemon"):
        find_builder({**programs.environ, "NBSERVE_BUILDER": "docker"})


def test_without_a_builder_it_says_what_to_install(programs: Programs) -> None:
    with pytest.raises(ExportError, match="nothing here builds images: install docker, podman or buildah"):
        find_builder(programs.environ)


@pytest.mark.parametrize(
    ("said", "advice"), [(NO_DAEMON, "start it, or install"), (NOT_MINE, "add yourself to the group docker")]
)
def test_with_a_broken_one_alone_it_says_why_it_does_not_work(programs: Programs, said: str, advice: str) -> None:
    programs.add("docker", 1, said)
    with pytest.raises(ExportError) as raised:
        find_builder(programs.environ)
    assert f"docker: {said}" in str(raised.value)
    assert advice in str(raised.value)


def test_docker_builds_with_secrets_alone() -> None:
    arguments = {"TORCH_INDEX": ""}
    line = Builder("docker", ("docker",)).build(Path("/x"), "digits:1", Path("/s"), PIP, arguments, {})
    assert " ".join(line) == (
        "docker build --tag digits:1 --secret id=pipconf,src=/s --build-arg=TORCH_INDEX= "
        "--secret id=pipcert,src=/etc/ssl/ca.crt --progress plain /x"
    )
    line = Builder("docker", ("docker",)).build(Path("/x"), "digits:1", Path("/s"), PipSettings(), {}, {})
    assert " ".join(line) == "docker build --tag digits:1 --secret id=pipconf,src=/s --progress plain /x"


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_podman_and_buildah_keep_the_health_check_and_see_what_pip_needs(name: str) -> None:
    line = " ".join(Builder(name, (name, "--root", "/r")).build(Path("/x"), "d:1", Path("/s"), PIP, {}, {}))
    assert line == (
        f"{name} --root /r build --tag d:1 --secret id=pipconf,src=/s --format docker --layers --force-rm "
        "--isolation chroot --volume=/etc/ssl/ca.crt:/etc/ssl/ca.crt:ro --volume=/opt/wheels:/opt/wheels:ro /x"
    )


def test_an_isolation_that_somebody_chose_stays() -> None:
    environ = {"BUILDAH_ISOLATION": "rootless"}
    assert "--isolation" not in Builder("buildah", ("buildah",)).build(Path("/x"), "d:1", Path("/s"), PIP, {}, environ)


def test_the_size_is_the_sum_of_layers_where_no_sum_is_told() -> None:
    assert size_of(json.dumps([{"Id": "f00", "Size": 1220000000}])) == 1220000000
    manifest = {"config": {"size": 3000}, "layers": [{"size": 250_000_000}, {"size": 970_000_000}]}
    assert size_of(json.dumps({"FromImageID": "", "Manifest": json.dumps(manifest)})) == 1220000000
