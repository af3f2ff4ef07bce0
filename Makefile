# Everything a contributor or CI runs. Needs python3, git, make and cc; the rest goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The tests run in .venv, whatever environment this shell is in.
unexport VIRTUAL_ENV

TORCH := $(shell grep '^torch==' constraints.txt)
PURE := not process and not notebook and not browser and not container and not ray
LABEXTENSION := extension/nbserve_extension/labextension
CHECKED := nbserve extension notebooks tests $(wildcard benchmarks)

# Installs Debian packages, or says which are missing. A new machine has no list of them, or an old one.
debian = { test "$$(id -u)" = 0 && { apt-get install -y $(1) || { apt-get update && apt-get install -y $(1); }; }; } || { echo 'please install the package $(1)'; false; }

.DEFAULT_GOAL := help
.PHONY: help demo ship lab test check js bench clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { $(call debian,python3-venv) && $(PYTHON) -m venv $(VENV); }

# torch comes first and alone, so that the machine's pip configuration decides which build it gets.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt $(TORCH)
	@touch $@

# An editable install too copies what Jupyter finds in share/jupyter.
$(VENV)/.installed: pyproject.toml constraints.txt $(LABEXTENSION)/package.json $(VENV)/.torch
	$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[test,bench]'
	@touch $@

# The tests run the panel under an ipykernel of before the subshells too; it lies beside the other, and shares the rest.
$(VENV)/.ipykernel-6: | $(VENV)/.installed
	$(PIP) install --no-deps --target .venvs/ipykernel-6 ipykernel==6.31.0 nest-asyncio==1.6.0
	@touch $@

demo: $(VENV)/.installed  ## run notebooks/quickstart.ipynb in a real kernel; leaves demo/quickstart.ipynb and .html
	$(BIN)/python notebooks/demo.py

# Without Docker, root gets podman and buildah from Debian's packages, and the base image is made here.
ship: $(VENV)/.installed  ## the same notebook to a running, verified container, in one go; KEEP=1 leaves it running
	@command -v curl >/dev/null || { $(call debian,curl); }
	@if docker info >/dev/null 2>&1 || { test "$$(id -u)" != 0 && podman info >/dev/null 2>&1; }; \
	then $(BIN)/python notebooks/ship.py; \
	else HOST_NETWORK=1 $(BIN)/python -m tests.container.standin -- $(BIN)/python notebooks/ship.py; fi

lab: $(VENV)/.installed  ## open the quickstart in JupyterLab
	$(BIN)/jupyter lab notebooks/quickstart.ipynb

test: $(VENV)/.installed $(VENV)/.ipykernel-6  ## all tests
	@command -v curl >/dev/null || { $(call debian,curl); } || true
	@command -v g++ >/dev/null || { $(call debian,g++); } || true
	@command -v chromium >/dev/null || { $(call debian,chromium fonts-dejavu-core); } || true
	@# The tests want the program; the package starts a service with it where there is systemd.
	@command -v prometheus >/dev/null || { $(call debian,--no-install-recommends prometheus) && { systemctl disable --now prometheus 2>/dev/null || true; }; } || true
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/python -m pytest -m alone

check: $(VENV)/.installed  ## format, lint, types and the pure tests: seconds
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/python extension/js/build.py --check
	$(BIN)/python -m pytest -q -m '$(PURE)'

js: $(VENV)/.installed  ## build the browser's part from extension/js
	$(BIN)/python extension/js/build.py

bench: $(VENV)/.bench  ## measure against other servers (needs wrk)
	@command -v wrk >/dev/null || { $(call debian,wrk); }
	$(BIN)/python -m benchmarks

clean:  ## remove what make made
	$(PYTHON) -m tests.container.standin --remove
	rm -rf $(VENV) .venvs extension/js/node_modules demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
