"""Folders of profiles, and those that killed processes left."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from nbserve.profiling import folders


def test_what_ended_processes_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for name in (f"{folders.PREFIX}{ended.pid}-a", f"{folders.PREFIX}{os.getppid()}-a", "another-1-a"):
        (tmp_path / name).mkdir()
    mine = folders.new()
    assert mine.stat().st_mode & 0o777 == 0o700
    again = folders.new()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {mine.name, again.name, f"{folders.PREFIX}{os.getppid()}-a", "another-1-a"}
