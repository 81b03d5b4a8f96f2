# Everything is set up from Python and make alone.
#   make demo     the core only, in .venv; then `regraft demo`
#   make test     all that the tests use, in .venv-dev; then every check but the slow ones
#   make check    the quick checks: lint, types, house, unit, laws
#   make map      redraw the map in ARCHITECTURE.md, print sizes against their targets
#   make nightly  what is too long for every change: slow tests and benches
#   make lock     resolve constraints/*.txt anew
#   make clean    remove environments and caches (runs/ is kept)

PYTHON  ?= python3
WORKERS ?= 2
DEV     := .venv-dev
LIGHT   := .venv

export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH VIRTUAL_ENV

.DEFAULT_GOAL := test
.PHONY: demo test check lint types map nightly lock clean python

python:
	@command -v "$(PYTHON)" >/dev/null || { echo "make: there is no $(PYTHON) here; name one of 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); regraft needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot make environments: install its venv and ensurepip modules (Debian: python3-venv)" >&2; exit 1; }

# ---------------------------------------------------------------- the light lane: the core, no torchvision, no timm

demo: $(LIGHT)/.ready
	@$(LIGHT)/bin/regraft demo

$(LIGHT)/.ready: pyproject.toml constraints/core.txt | python
	@echo "make demo: installing the core into $(LIGHT). It fetches $$(sed -n '1s/^#.* fetches //p' constraints/core.txt); this takes a minute or two"
	@$(PYTHON) -m venv --clear $(LIGHT)
	@$(LIGHT)/bin/python -m pip install -qq -c constraints/core.txt -e .
	@touch $@

# ---------------------------------------------------------------- the full lane: all that the tests use

test check nightly: export OMP_NUM_THREADS := 1

test: $(DEV)/.ready lint types
	$(DEV)/bin/pytest -n $(WORKERS) --dist loadfile -m "not slow" tests

check: $(DEV)/.ready lint types
	$(DEV)/bin/pytest -n $(WORKERS) --dist loadfile -m "not slow" tests/house tests/unit tests/laws

lint: $(DEV)/.ready
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .

types: $(DEV)/.ready
	$(DEV)/bin/mypy

nightly: $(DEV)/.ready
	$(DEV)/bin/pytest -m slow --timeout 7200 tests # 300 kills and more: tests/laws/test_faults.py
	$(DEV)/bin/python bench/all.py

# pip looks in more places than uv, so uv is fetched by pip and does the rest: 6 GB in half a minute.
$(DEV)/.ready: pyproject.toml constraints/dev.txt | python
	@echo "make: installing all that the tests use into $(DEV). It fetches $$(sed -n '1s/^#.* fetches //p' constraints/dev.txt); this takes a minute or two"
	@$(PYTHON) -m venv --clear $(DEV)
	@$(DEV)/bin/python -m pip install -qq -c constraints/dev.txt uv
	@$(DEV)/bin/uv pip install --quiet --python $(DEV)/bin/python -c constraints/dev.txt -e ".[image,minilm,datasets,openvino]" --group dev
	@touch $@

# ---------------------------------------------------------------- upkeep

map: | python
	$(PYTHON) tools/map.py
	$(PYTHON) tools/map.py --sizes

lock: $(DEV)/.ready
	$(DEV)/bin/python tools/lock.py

clean:
	rm -rf $(LIGHT) $(DEV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
