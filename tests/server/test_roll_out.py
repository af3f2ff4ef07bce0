"""Settings that need new workers: who starts when, and what they are told."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from nbserve.errors import StartError
from nbserve.server.endpoint import NEEDS_NEW_WORKERS
from tests.server.stage import Stage, play, until

MODEL = """
class H(nbserve.Handler):
    def initialize(self, context):
        import torch
        self.model = torch.nn.Identity()
    def preprocess(self, requests):
        import torch
        return torch.tensor(requests, dtype=torch.float32)
    def postprocess(self, outputs):
        return outputs.tolist()
"""


def test_where_workers_compile_the_first_starts_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("NBSERVE_CACHE_DIR", str(tmp_path))

    async def scene(stage: Stage) -> None:
        version = stage.version(workers=3, compile="eager")
        said: list[str] = []
        starting = asyncio.ensure_future(version.start(said.append))
        await until(lambda: len(stage.scripts) == 1)
        assert [worker.index for worker in version.crew.workers] == [0]
        stage.scripts[0].say("ready")
        await until(lambda: len(stage.scripts) == 3)
        assert said == ["1 of 3 workers ready"]
        for script in stage.scripts[1:]:
            script.say("ready")
        await starting
        assert said == ["1 of 3 workers ready", "2 of 3 workers ready", "3 of 3 workers ready"]
        assert [script.spec["worker_index"] for script in stage.scripts] == [0, 1, 2]
        assert [worker.index for worker in version.crew.rotation] == [0, 1, 2]

    play(scene)


def test_when_the_first_cannot_compile_no_other_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("NBSERVE_CACHE_DIR", str(tmp_path))

    async def scene(stage: Stage) -> None:
        version = stage.version(workers=2, compile="eager")
        starting = asyncio.ensure_future(version.start(lambda text: None))
        await until(lambda: len(stage.scripts) == 1)
        stage.scripts[0].say("failed", error="no compiler", traceback="line 1")
        await until(lambda: version.crew.workers[0].start_error)
        stage.scripts[0].exit(status=3 << 8)
        with pytest.raises(StartError, match="no compiler"):
            await starting
        assert len(stage.scripts) == 1
        assert version.crew.everyone == []

    play(scene)


def test_a_worker_is_told_its_settings_and_the_cache_of_this_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("NBSERVE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} 2.0")

    async def scene(stage: Stage) -> None:
        settings = {"compile": "inductor", "compile_mode": "reduce-overhead", "dtype": "bfloat16"}
        await stage.serve(**settings, channels_last=True, inference_mode=True)
        spec = stage.scripts[0].spec
        assert spec.items() >= {**settings, "channels_last": True, "inference_mode": True, "profile": None}.items()
        cache = Path(spec["compile_cache"])
        assert cache == tmp_path / "cache" / "inductor" / "torch 2.0"
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700
        await stage.serve()
        assert stage.scripts[1].spec["compile_cache"] is None

    play(scene)


def test_a_cache_that_cannot_be_made_is_done_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NBSERVE_CACHE_DIR", str(tmp_path / "file"))

    async def scene(stage: Stage) -> None:
        await stage.serve(compile="eager")
        assert stage.scripts[0].spec["compile_cache"] is None
        assert "each worker compiles by itself" in caplog.text

    play(scene)


@pytest.mark.process
@pytest.mark.parametrize("setting", [{"inference_mode": True}, {"dtype": "bfloat16"}], ids=str)
def test_settings_of_a_handler_s_modules_roll_out_without_loss(serve_cell, load, setting):
    endpoint = serve_cell(MODEL)
    assert set(setting) <= set(NEEDS_NEW_WORKERS)
    [before] = endpoint.stats()["workers"]
    with load(endpoint.url) as clients:
        clients.wait_for(20)
        assert endpoint.configure(**setting).items() >= setting.items()
        [after] = endpoint.stats()["workers"]
        clients.wait_for(20)
    assert set(clients.statuses) == {200}
    assert before["pid"] != after["pid"]
    endpoint.configure(max_batch_size=4)
    assert endpoint.stats()["workers"][0]["pid"] == after["pid"]
