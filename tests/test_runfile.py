from __future__ import annotations

import os
import stat

import psutil
import pytest

from nbserve import runfile
from nbserve.errors import NbserveError
from nbserve.runfile import RunFile


@pytest.fixture(autouse=True)
def own_runtime_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("NBSERVE_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def a_run_file(server_id="ab12", started_s=None):
    started_s = psutil.Process().create_time() if started_s is None else started_s
    return RunFile(server_id, os.getpid(), started_s, "http://127.0.0.1:1", "http://127.0.0.1:2", "secret")


def test_only_the_user_can_read_it(own_runtime_dir):
    written = a_run_file()
    written.write()
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_runtime_dir.stat().st_mode) == 0o700
    assert runfile.read(written.path) == written
    assert list(runfile.running()) == [written]


def test_a_reused_pid_is_not_taken_for_the_server():
    stale = a_run_file(started_s=1.0)
    stale.write()
    stale.directory.mkdir()
    (stale.directory / "server.log").write_text("old")
    assert list(runfile.running()) == []
    assert not stale.path.exists()
    assert not stale.directory.exists()


def test_damaged_files_are_no_servers(own_runtime_dir):
    runfile.runtime_dir()
    (own_runtime_dir / "cd34.json").write_text("{")
    assert list(runfile.running()) == []


def test_a_folder_that_others_can_write_to_is_refused(own_runtime_dir):
    own_runtime_dir.mkdir()
    own_runtime_dir.chmod(0o777)
    with pytest.raises(NbserveError, match="NBSERVE_RUNTIME_DIR"):
        runfile.runtime_dir()
