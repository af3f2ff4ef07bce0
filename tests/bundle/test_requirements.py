"""requirements.txt: exact pins of what the bundle imports and of all that those need."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from nbserve.capture.requirements import distributions_of, requirements


def test_pins_are_exact_and_closed() -> None:
    text = requirements(["torch", "sklearn"])
    pins = dict(line.split("==") for line in text.splitlines())
    names = {name.lower().replace("_", "-") for name in pins}
    assert {"torch", "scikit-learn", "scipy", "joblib", "threadpoolctl", "sympy", "nbserve-torch"} <= names
    assert pins["torch"] == importlib.metadata.version("torch")
    assert "pytest" not in names
    assert "jupyterlab" not in names


def test_modules_are_found_under_other_names_too() -> None:
    assert distributions_of("numpy") == ("numpy",)
    assert [name.lower() for name in distributions_of("PIL")] == ["pillow"]
    assert [name.lower() for name in distributions_of("yaml")] == ["pyyaml"]
    assert distributions_of("no_such_module") == ()


def test_everything_a_handler_reaches_is_pinned(notebook: Any) -> None:
    notebook.run(
        "import nbserve\n"
        "from sklearn.linear_model import LinearRegression\n"
        "fit = LinearRegression().fit([[0.0], [1.0]], [0, 1])\n"
        "del LinearRegression\n"
        "class Served(nbserve.Handler):\n    def handle(self, requests, context):\n"
        "        import yaml\n        return [yaml.dump(r) for r in fit.predict(requests)]"
    )
    bundle = notebook.serve()
    assert bundle.imports == ["sklearn", "yaml"]
    text = (bundle.path / "requirements.txt").read_text()
    assert "\nscikit-learn==" in text
    assert "\nPyYAML==" in text
