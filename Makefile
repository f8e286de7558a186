# Two commands on a fresh machine with Python >= 3.11: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Threads that spin while they wait make shared machines crawl.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo live test lint types unit bench dist words manual docs gallery reference clean

demo: $(VENV)/core
	$(BIN)/python examples/demo.py demo-output

# The demo's scan again, as if it were being measured.
live: $(VENV)/live
	test -e demo-output/raw/raw.spec || $(BIN)/python examples/demo.py demo-output
	$(BIN)/braggshot live 'replay:demo-output/raw/raw.spec?rate=10' -o demo-output/live

test: lint types unit manual

lint: $(VENV)/test
	$(BIN)/ruff check src tests benchmarks examples docs packaging
	$(BIN)/ruff format --check src tests benchmarks examples docs packaging

types: $(VENV)/test
	$(BIN)/mypy

# Two files at a time, a core each: most of what the tests do is too small to be shared by cores.
unit: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# The manual, every warning an error (--quiet would hide them from --strict); nothing is loaded from elsewhere.
manual: $(VENV)/test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/manual

docs: manual
	@echo "the manual is in build/manual/; to read it: $(BIN)/mkdocs serve"

# What pages say about commands, settings and formats, after one of these changed.
reference: $(VENV)/test
	$(BIN)/python docs/generate.py

# The pictures of docs/gallery.md, each by the command that stands above it.
gallery: demo $(VENV)/test
	$(BIN)/python examples/corrosion.py -o build/gallery/corrosion
	$(BIN)/python examples/charging.py -o build/gallery/charging
	$(BIN)/python examples/gallery.py -o build/gallery

bench: $(VENV)/dev
	cd benchmarks && ../$(BIN)/asv machine --yes && ../$(BIN)/asv run --python=same --quick

# The wheel and the sdist in dist/, checked; then the wheel alone in an environment of its own, from an empty folder.
dist: $(VENV)/dev
	rm -rf dist build/dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/dist
	build/dist/bin/pip install -q -c constraints.txt dist/*.whl
	packaging/smoke.sh $(CURDIR)/build/dist/bin/braggshot

# The words that shells propose, after a setting or a choice was added.
words: $(VENV)/test
	$(BIN)/python packaging/words.py

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("braggshot needs Python 3.11 or newer") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/live: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt -e '.[live,view]'
	touch $(VENV)/core $@

$(VENV)/test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $(VENV)/core $@

$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $(VENV)/core $(VENV)/test $@

clean:
	rm -rf $(VENV) demo-output build dist
