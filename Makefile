# make demo   set up, then train, quantize and evaluate three seeds of the smoke job (minutes, no GPU)
# make test   set up, then run the tests
# make check  format, lint, types and tests, as a change must pass them
# make format mend what the formatter and linter can

PYTHON ?= python3
BIN := .venv/bin
# More threads than cores slow every process of a test run down. The tests of the cluster mostly
# wait, a file of them beside another, each with a Slurm of its own.
define TEST
OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --ignore tests/cluster
OMP_NUM_THREADS=1 $(BIN)/pytest -n 4 --dist loadfile tests/cluster
endef

.PHONY: demo test check lint format setup

demo: setup
	$(BIN)/golf-launch smoke --seeds 1337,42,7

test: setup
	$(TEST)

check: lint
	$(TEST)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "golf-launch needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "installing python3-venv, which Debian and Ubuntu keep apart"; \
		$$([ "$$(id -u)" = 0 ] || echo sudo) apt-get install -y python3-venv; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
