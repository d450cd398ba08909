# Everything a person types: demo, check, test, faults, bench, lock, crd, docs. Each sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# CLUSTER=auto: the stand-in, and the real API server where its binaries are found; standin or real: one of them.
# CLUSTER=current: the kubeconfig's context.
CLUSTER ?= auto
# Processes for `make test`. Tests mostly wait, so three pay on two cores; each starts API servers of its own.
# On the current cluster one: more would race to apply the CRD.
WORKERS ?= $(if $(filter current,$(CLUSTER)),0,3)
PYTEST_ARGS ?=
FAULTS_ARGS ?=
BENCH_ARGS ?=

.PHONY: demo check test faults bench venv crd docs lock clean

venv: $(VENV)/.done
$(VENV)/.done: requirements-dev.lock pyproject.toml
	@echo "Setting up $(VENV), once: about a minute"
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch "$@"

demo: venv  ## the operator at work, on stand-ins; KEEP=1 leaves it running until Ctrl-C
	"$(BIN)/python" -m openairun_devkit.demo $(if $(filter-out 0,$(KEEP)),--keep)

check: venv  ## ruff, mypy strict, the import contract
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

test: venv  ## cluster tests on the stand-in and on the real API server, and pure tests
	CLUSTER="$(CLUSTER)" "$(BIN)/python" -m pytest -n "$(WORKERS)" --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# FAULTS_ARGS=--help lists what can be said of it.
faults: venv  ## kill the operator at every step, play random schedules; a quarter of an hour
	PYTHONPATH=tests/harness:tests/faults "$(BIN)/python" tests/faults/bench.py $(FAULTS_ARGS)

$(VENV)/.bench: $(VENV)/.done requirements-bench.lock
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	touch "$@"

# BENCH_ARGS=--help lists what can be said of it.
bench: $(VENV)/.bench  ## what the operator costs, beside one written in an afternoon; an hour
	PYTHONPATH=tests/harness:tests/bench "$(BIN)/python" tests/bench/bench.py $(BENCH_ARGS)

crd: venv  ## write the CRDs anew from the models
	"$(BIN)/openairun-operator" crd openairuns > deploy/crds/openairun.dev_openairuns.yaml
	"$(BIN)/openairun-operator" crd openaiproviders > deploy/crds/openairun.dev_openaiproviders.yaml

docs: venv  ## write docs/reference.md anew from the CRDs
	"$(BIN)/python" -m openairun_devkit.reference > docs/reference.md

lock: venv  ## resolve the dependencies anew
	"$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url pyproject.toml -o requirements.lock
	"$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	"$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra bench -c requirements-dev.lock pyproject.toml -o requirements-bench.lock
	echo hatchling | "$(BIN)/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate -c requirements-dev.lock - -o requirements-build.lock

clean:
	rm -rf "$(VENV)" .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist
