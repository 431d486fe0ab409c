# make test   installs what is missing and runs the tests
# make lint   ruff and mypy
# Both work again, quickly, when run twice.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.PHONY: test lint clean
test: $(STAMP)-installed
	$(BIN)/python -m pytest -q

lint: $(STAMP)-installed
	$(BIN)/ruff check stamp_deploy training export tests benchmarks setup.py
	$(BIN)/mypy

$(STAMP)-system:
	PYTHON=$(PYTHON) sh .ci/system-packages
	$(PYTHON) -m venv $(VENV)
	touch $@

$(STAMP)-packages: $(STAMP)-system pyproject.toml
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet setuptools cython numpy
	touch $@

$(STAMP)-installed: $(STAMP)-packages setup.py $(wildcard csrc/*)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e '.[openvino,train,export,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist wheelhouse *.egg-info stamp_deploy/*.so
