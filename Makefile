# The two commands of the README are "make report" and "make test"; both set up what they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/report
SAMPLE ?= sample_data/ct/STS_006_CT.nii.gz

# Without an NVIDIA driver the CPU build of PyTorch is taken: the other one brings several GB that cannot be used.
CONSTRAINT := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo -c constraints-cpu.txt)
READY := $(VENV)/ready-$(shell cat pyproject.toml constraints-cpu.txt | sha256sum | cut -c1-12)

# What napari needs to draw in a window that nobody sees.
X_PACKAGES := xvfb xauth libgl1 libegl1 libgl1-mesa-dri libdbus-1-3 libfontconfig1 libglib2.0-0 libxkbcommon-x11-0 \
  libx11-xcb1 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 \
  libxcb-shape0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: report test lint bench clean

report: $(READY)
	$(BIN)/unibiomed report $(SAMPLE) --out $(OUT) --overwrite --offline
	@echo "Open $(OUT)/report.html"

test: $(READY) $(VENV)/sam2 x-packages
	HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=10 $(PYTEST_ARGUMENTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/run.py out/benchmarks

clean:
	rm -rf $(VENV) out build dist *.egg-info

# uv is 20 times faster and does not read pip's find-links by itself; pip does the same job where uv cannot be had.
$(READY): pyproject.toml constraints-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name it with PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv || echo "uv cannot be installed; pip is used, which takes some minutes"
	( test -x $(BIN)/uv && UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" \
	  $(BIN)/uv pip install -q --python $(BIN)/python $(CONSTRAINT) -e ".[all]" ) \
	  || $(BIN)/python -m pip install -q $(CONSTRAINT) -e ".[all]"
	$(BIN)/python -c 'import torch; print("PyTorch", torch.__version__, "CUDA", torch.version.cuda)'
	rm -f $(VENV)/ready-*
	touch $@

# The independent reference for one group of tests, without its dependencies: they would replace PyTorch.
$(VENV)/sam2: $(READY)
	( $(BIN)/python -m pip install -q setuptools wheel hydra-core iopath \
	  && SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install -q --no-build-isolation --no-deps sam2==1.1.0 ) \
	  || echo "sam2 could not be installed; the tests that compare with it are skipped"
	touch $@

.PHONY: x-packages
x-packages:
	@if command -v Xvfb >/dev/null || [ "$$(uname)" != Linux ]; then true; \
	elif command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then \
	  run=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq \
	    --no-install-recommends $(X_PACKAGES) >/dev/null \
	  || echo "The X packages could not be installed; window tests are skipped: $(X_PACKAGES)"; \
	else echo "Window tests are skipped; they need these packages: $(X_PACKAGES)"; fi
