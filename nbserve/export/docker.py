"""The Dockerfile of an export, and what it leaves out. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from nbserve.export.plan import BUNDLE, METRICS_PORT, UID, VENV, Files, Plan
from nbserve.export.texts import filled

_MANIFEST = "model/manifest.json"


def files(plan: Plan) -> Files:
    return {
        "Dockerfile": filled(
            "Dockerfile",
            name=plan.name,
            version=plan.version,
            base=plan.base,
            index_url=plan.index_url,
            compiler=plan.base == base(plan.python, has_compiler=True),
            wheels=bool(plan.wheels),
            gpu=plan.is_gpu,
            venv=VENV,
            bundle=BUNDLE,
            port=plan.port,
            metrics_port=METRICS_PORT,
            uid=UID,
            layers=_layers(plan),
        ),
        ".dockerignore": filled("dockerignore"),
    }


def base(python: str, has_compiler: bool = False) -> str:
    """The image to build upon: Python's own, for that version."""
    return f"docker.io/library/python:{python}{'' if has_compiler else '-slim'}-bookworm"


def _layers(plan: Plan) -> str:
    """The weights before the manifest, which tells of the code too: a new line of code leaves their layer as it is."""
    model = [PurePosixPath(file) for file in plan.bundle_files if file.startswith("model/") and file != _MANIFEST]
    kinds = sorted({f"bundle/model/*{path.suffix}" for path in model})
    folders = {file.partition("/")[0] for file in plan.bundle_files if "/" in file} - {"model"}
    texts = sorted(f"bundle/{file}" for file in plan.bundle_files if "/" not in file)
    lines = [f"COPY {' '.join(kinds)} {BUNDLE}/model/"] if kinds else []
    lines += [f"COPY bundle/{folder} {BUNDLE}/{folder}/" for folder in sorted(folders, key=_by_change)]
    lines += [f"COPY bundle/{_MANIFEST} {BUNDLE}/model/", f"COPY {' '.join(texts)} {BUNDLE}/"]
    return "\n".join(lines)


def _by_change(folder: str) -> tuple[int, str]:
    """Files of the handler, then what the compiler left, then modules."""
    return {"files": 0, "cache": 1}.get(folder, 2), folder
