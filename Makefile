# make repro: everything from nothing. make repro PROFILE=small: a first look, in profiles/small.
# make test: the tests, in JOBS processes. All set up .venv from requirements.lock first.
# make board: TensorBoard on the runs.
PYTHON ?= python3
JOBS ?= 2
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: setup repro test lint lock board demo clean

setup: .venv/.synced

.venv/.synced: requirements.lock
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip sync --python .venv/bin/python --compile-bytecode --require-hashes requirements.lock
	touch $@

ifdef PROFILE
repro: setup
	python -m pipeline.profile --name $(PROFILE)
	cd profiles/$(PROFILE) && dvc repro
else
repro: setup
	test -e .git || test -f .dvc/config.local || dvc config --local core.no_scm true
	dvc repro
endif

test: setup
	python -m pytest -n $(JOBS) --dist worksteal

lint: setup
	ruff check . && ruff format --check .

# After a change of the dependencies in pyproject.toml.
lock: setup
	python -m pip install --quiet uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --all-extras \
		pyproject.toml -o requirements.lock

board: setup
	python -m pipeline.training.browse --runs runs

# A page at http://127.0.0.1:8501: what a run makes of your own clip (docs/demo.md).
demo: setup
	streamlit run pipeline/demo/app.py

clean:
	rm -rf data weights runs evaluation report profiles/*/
