"""The import rules of the house: in which process does a line run? Read from the syntax tree, so lazy imports count."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nbserve"

JUPYTER = ("IPython", "ipykernel", "ipywidgets", "traitlets", "comm", "anywidget", "jupyter_client", "jupyter_server")

# folder or file under nbserve/ -> modules that nothing in it imports, not even inside a function
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "server": (
        "torch",
        "numpy",
        "safetensors",
        "nbserve.worker",
        "nbserve.capture",
        "nbserve.notebook",
        "nbserve.profiling",
        *JUPYTER,
    ),
    "worker": (
        "tornado",
        "prometheus_client",
        "uvloop",
        "nbserve.server",
        "nbserve.capture",
        "nbserve.notebook",
        *JUPYTER,
    ),
    "bundle": (
        "tornado",
        "prometheus_client",
        "nbserve.server",
        "nbserve.worker",
        "nbserve.capture",
        "nbserve.notebook",
        *JUPYTER,
    ),
    "capture": ("tornado", "prometheus_client", "nbserve.server", "nbserve.worker", "nbserve.notebook", *JUPYTER),
    "notebook": ("socket", "http", "urllib", "asyncio", "tornado", "nbserve.server", "nbserve.worker", "nbserve.cli"),
    "deployment.py": ("torch", "nbserve.worker", "nbserve.notebook", *JUPYTER),
    "verbs.py": ("torch", "nbserve.worker", *JUPYTER),
    "logtext.py": ("torch", "nbserve.server", "nbserve.worker", "nbserve.notebook", *JUPYTER),
    "serving.py": ("nbserve.notebook", "nbserve.server", "nbserve.worker", *JUPYTER),
    "cli": ("torch", "nbserve.notebook", "nbserve.worker", *JUPYTER),
    "__init__.py": ("nbserve.server", "nbserve.worker", *JUPYTER),
    "wire.py": ("torch", "numpy", "tornado", *JUPYTER),
    "debugwire.py": ("torch", "numpy", "tornado", *JUPYTER),
    "exchange.py": ("torch", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "debugging": ("torch", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "trace": ("torch", "tornado", "socket", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "load": (
        "torch",
        "numpy",
        "tornado",
        "nbserve.notebook",
        "nbserve.worker",
        "nbserve.server",
        "nbserve.profiling",
        *JUPYTER,
    ),
    "profiling": ("torch", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "export": ("torch", "tornado", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "replay": ("torch", "numpy", "tornado", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "tune": ("torch", "nbserve.notebook", "nbserve.worker", "nbserve.server", *JUPYTER),
    "recording.py": ("torch", "numpy", "tornado", *JUPYTER),
    "config.py": ("torch", "numpy", "tornado", *JUPYTER),
    "environment.py": ("torch", "numpy", "tornado", "nbserve.server", "nbserve.worker", "nbserve.notebook", *JUPYTER),
    "errors.py": ("torch", "numpy", "tornado", *JUPYTER),
    "handler.py": ("tornado", "nbserve.server", "nbserve.worker", "nbserve.notebook", *JUPYTER),
}

# What of `ray/` does not run in a replica, or is imported before a replica is.
for _part in ("__init__", "app", "deploy", "launch", "mapping", "options", "package"):
    FORBIDDEN[f"ray/{_part}.py"] = ("torch", "nbserve.server", "nbserve.worker", "nbserve.notebook", *JUPYTER)
FORBIDDEN["ray"] = ("tornado", "nbserve.capture", "nbserve.notebook", "nbserve.deployment", *JUPYTER)


# `nbserve export NOTEBOOK` runs a notebook from the terminal; nothing else of the notebook face belongs there.
ALLOWED = {("cli/export.py", "nbserve.notebook.headless"), ("cli/export.py", "nbserve.notebook.headless.served")}


@pytest.mark.parametrize("place", sorted(FORBIDDEN))
def test_a_part_imports_nothing_that_belongs_to_another_process(place: str) -> None:
    crossings = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in _files(PACKAGE / place)
        for module, line in imports(path.read_text(), _package_of(path))
        if _is_any(module, FORBIDDEN[place]) and (path.relative_to(PACKAGE).as_posix(), module) not in ALLOWED
    ]
    assert not crossings


def test_jupyter_is_known_only_to_the_notebook_face() -> None:
    crossings = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in _files(PACKAGE)
        if PACKAGE / "notebook" not in path.parents
        for module, line in imports(path.read_text(), _package_of(path))
        if _is_any(module, JUPYTER)
    ]
    assert not crossings


def test_ray_is_known_only_to_its_own_folder() -> None:
    crossings = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in _files(PACKAGE)
        if PACKAGE / "ray" not in path.parents
        for module, line in imports(path.read_text(), _package_of(path))
        if _is_any(module, ("ray",))
    ]
    assert not crossings


# Verbs of the endpoint whose whole job is the notebook face: called nowhere but in a kernel, and imported only then.
SHOWN_IN_NOTEBOOKS = ("controls", "panel")


EXTENSION = ROOT / "extension" / "nbserve_extension"


def test_the_extension_runs_in_jupyters_server_and_goes_through_the_apis() -> None:
    others = ("torch", "numpy", "IPython", "ipykernel", "ipywidgets", "anywidget")
    parts = ("server", "worker", "notebook", "capture", "profiling", "trace", "tune", "debugging", "load", "cli")
    forbidden = (*others, *(f"nbserve.{part}" for part in parts))
    crossings = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in _files(EXTENSION)
        for module, line in imports(path.read_text(), "nbserve_extension")
        if _is_any(module, forbidden)
    ]
    assert _files(EXTENSION)
    assert not crossings


def test_nothing_imports_the_notebook_face_but_the_extension_hooks() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in _files(PACKAGE)
        if PACKAGE / "notebook" not in path.parents
        for module, _ in imports(path.read_text(), _package_of(path))
        if _is_any(module, ("nbserve.notebook",))
    }
    assert users <= {"__init__.py", "verbs.py", "cli/export.py"}
    top_level = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert not any(
        "notebook" in ast.unparse(node) for node in top_level if isinstance(node, ast.Import | ast.ImportFrom)
    )


def test_of_an_endpoint_only_what_is_shown_in_notebooks_imports_their_face() -> None:
    source = (PACKAGE / "verbs.py").read_text()
    methods = [
        node
        for cls in ast.parse(source).body
        if isinstance(cls, ast.ClassDef) and cls.name == "Endpoint"
        for node in cls.body
        if isinstance(node, ast.FunctionDef) and node.name in SHOWN_IN_NOTEBOOKS
    ]
    allowed = {line for method in methods for line in range(method.lineno, (method.end_lineno or 0) + 1)}
    lines = [line for module, line in imports(source, "nbserve") if _is_any(module, ("nbserve.notebook",))]
    assert lines
    assert set(lines) <= allowed


def test_the_rules_see_lazy_and_relative_imports() -> None:
    source = "def f():\n    import IPython.display\n    from .server import app\n    from nbserve import worker\n"
    found = {module for module, _ in imports(source, "nbserve")}
    assert {"IPython.display", "nbserve.server", "nbserve.server.app", "nbserve.worker"} <= found
    assert _is_any("IPython.display", JUPYTER)
    assert not _is_any("commander", JUPYTER)


def imports(source: str, package: str) -> Iterator[tuple[str, int]]:
    """Every module that `source` imports anywhere, with its line; `from a import b` counts as a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((arg.value, node.lineno) for arg in node.args if isinstance(arg, ast.Constant))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.exists() else []


def _package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def _is_any(module: str, forbidden: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in forbidden)
