# make demo: a virtual environment, the package, and 4,495 pictures that become searchable.
# make test: lint, types, contracts between folders, and every test, with real servers.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test served trainings commands units gamma lint types check bench docs clean

demo: $(VENV)/demo
	$(BIN)/embedkit demo

# Trainings have a process of their own: beside every other native library in one process they crashed. They run while
# the tests that need servers wait for those, and give way to them; then come the commands and the tests of single parts.
TRAININGS := $(addprefix tests/unit/training/,test_trainer.py test_resume.py test_joint_training.py)

test: lint gamma
	$(MAKE) --no-print-directory --jobs=2 served trainings commands units

served: $(VENV)/dev
	$(BIN)/python -m pytest tests --ignore=tests/unit --ignore=tests/cli

trainings: $(VENV)/dev
	nice $(BIN)/python -m pytest --quiet $(TRAININGS)

commands: $(VENV)/dev
	nice $(BIN)/python -m pytest --quiet tests/cli

units: $(VENV)/dev
	nice $(BIN)/python -m pytest --quiet tests/unit embedkit $(addprefix --ignore=,$(TRAININGS))

# The Python of Vearch's engine, whose package has the import name of the client that embedkit uses.
gamma: $(VENV)/dev
	$(BIN)/python tests/services/gamma_venv.py

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m embedkit_cli.docs --check

docs: $(VENV)/dev
	$(BIN)/python -m embedkit_cli.docs

bench: $(VENV)/dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/fetch.py
	$(BIN)/python benchmarks/evaluate.py

$(VENV)/demo: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

$(VENV)/dev: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-gamma .embedkit build dist *.egg-info
