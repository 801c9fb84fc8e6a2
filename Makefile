# The two commands of the README are "make report" and "make test"; both set up what they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/report
SAMPLE ?= sample_data/ct/STS_006_CT.nii.gz

# Without an NVIDIA driver the CPU build of PyTorch is taken: the other one brings several GB that cannot be used.
CONSTRAINT := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo -c constraints-cpu.txt)
# An editable installation points at one checkout, so the checkout's place belongs to the key.
READY := $(VENV)/ready-$(shell { cat pyproject.toml constraints-cpu.txt; echo "$(CURDIR) $(CONSTRAINT)"; } \
  | cksum | cut -d' ' -f1)

# What napari needs to draw in a window that nobody sees.
X_PACKAGES := xvfb xauth libgl1 libegl1 libgl1-mesa-dri libdbus-1-3 libfontconfig1 libglib2.0-0 libxkbcommon-x11-0 \
  libx11-xcb1 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 \
  libxcb-shape0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_COMPILE_BYTECODE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: report test test-slow lint bench docs clean x-packages

report: $(READY)
	$(BIN)/unibiomed report $(SAMPLE) --out $(OUT) --overwrite --offline
	@echo "Open $(OUT)/report.html"

# Two tiers: what is quick, and what is slow (20 kills, whole runs in two processes, thousands of slices, long fault
# suites), of which the quick tier has a small part. The pytest plugins of Qt and napari end the whole run where system
# libraries are missing; without them the tests of the plugin are skipped and the rest runs. Without pytest-xdist, and on
# one core, the tests run one after another.
test: TIER := not slow
test-slow: TIER := slow
test test-slow: $(READY) $(VENV)/sam2 x-packages
	without=$$($(BIN)/python -c 'import qtpy.QtWidgets, napari.layers' 2>/dev/null || echo -p no:pytest-qt -p no:napari); \
	parallel=$$($(BIN)/python -c 'import xdist' 2>/dev/null && printf '%s' '-n auto --dist worksteal'); \
	HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -m "$(TIER)" -rfEs --durations=10 $$parallel $$without $(PYTEST_ARGUMENTS)

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(READY)
	$(BIN)/python benchmarks/run.py out/benchmarks
	$(BIN)/python benchmarks/training.py out/benchmarks

# Sphinx with Markdown pages: kept by many, BSD and MIT; warnings are errors, so a public name without its docstring is met.
docs: $(READY)
	$(BIN)/python -m pip install -q -e ".[docs]"
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs
	@echo "Open out/docs/index.html"

clean:
	rm -rf $(VENV) out build dist *.egg-info

# uv is 20 times faster than pip and does not read pip's find-links by itself. It is told to compile what it installs, as
# pip does: where Python may not write bytecode, every process would compile PyTorch anew, for seconds. Where no local
# wheels are named, it takes PyTorch's CPU build from PyTorch's own index; if that cannot be reached, or uv cannot be had,
# whatever build comes.
$(READY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name it with PYTHON=")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv || echo "uv cannot be installed; pip is used, which takes some minutes"
	links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-}}"; \
	install() { "$$@" pip install -q --python $(BIN)/python $(CONSTRAINT) -e ".[all]"; }; \
	{ test -n "$(CONSTRAINT)" && test -z "$$links" && UV_TORCH_BACKEND=cpu install $(BIN)/python -m uv; } \
	  || UV_FIND_LINKS="$$links" install $(BIN)/python -m uv \
	  || $(BIN)/python -m pip install -q $(CONSTRAINT) -e ".[all]"
	$(BIN)/python -c 'import torch; print("PyTorch", torch.__version__, "CUDA", torch.version.cuda)'
	rm -f $(VENV)/ready-*
	touch $@

# The independent reference for one group of tests, without its dependencies: they would replace PyTorch.
$(VENV)/sam2: $(READY)
	{ $(BIN)/python -m pip install -q setuptools wheel hydra-core iopath \
	  && SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install -q --no-build-isolation --no-deps sam2==1.1.0 && touch $@; } \
	  || echo "sam2 could not be installed; the tests that compare with it are skipped"

# Ubuntu 24.04 and Debian 13 call some packages name + t64.
x-packages:
	@if [ "$$(uname)" != Linux ]; then exit 0; fi; \
	if ! command -v dpkg >/dev/null || ! command -v apt-get >/dev/null; then \
	  command -v Xvfb >/dev/null || echo "Window tests need Xvfb and the libraries of an X client (Debian's names: $(X_PACKAGES))"; \
	  exit 0; \
	fi; \
	missing=; for p in $(X_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || dpkg -s $${p}t64 >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; \
	else echo "Window tests may be skipped; they need these packages:$$missing"; exit 0; fi; \
	{ $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	  --no-install-recommends $$missing >/dev/null; } \
	|| echo "Packages for window tests could not be installed; those tests may be skipped:$$missing"
