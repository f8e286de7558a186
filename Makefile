# On a fresh machine with Python >= 3.11: make demo, make live, make test. Each says what it does, how long that takes, and how much it installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Threads that spin while they wait make shared machines crawl.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo live test test-long lint types unit manual docs notebooks gallery reference bench dist lock hooks clean

SAY := @printf '== %s\n'
# On a terminal pip shows what it fetches and how far it is; a log is spared that, but no error.
PIP := @test -t 1 || quiet=-q; $(BIN)/pip install $$quiet -c constraints.txt
CUDA := where pip takes the CUDA build of torch
PATIENCE := about a minute from a warm cache, several from the network

demo: $(VENV)/core
	$(SAY) 'demo: simulate a raw scan, reconstruct it, write files to demo-output/; one to two minutes'
	$(BIN)/python examples/demo.py demo-output

# The demo's scan again, as if it were being measured.
live: $(VENV)/live
	$(SAY) 'live: play the scan of the demo and show it in the browser; Ctrl-C ends'
	test -e demo-output/raw/raw.spec || $(BIN)/python examples/demo.py demo-output
	$(BIN)/braggshot live 'replay:demo-output/raw/raw.spec?rate=10' -o demo-output/live \
		--dark demo-output/raw/dark.tif --flat demo-output/raw/whitefield.tif

test: lint types unit manual

lint: $(VENV)/test
	$(SAY) 'lint: a second'
	$(BIN)/ruff check src tests benchmarks examples docs notebooks
	$(BIN)/ruff format --check src tests benchmarks examples docs notebooks

types: $(VENV)/test
	$(SAY) 'types: mypy, about 1 minute'
	$(BIN)/mypy

# Two files at a time, a core each: most of what the tests do is too small to be shared by cores.
unit: $(VENV)/test
	$(SAY) 'unit: pytest, about 11 minutes on two cores'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not long'

# Tests that take minutes each.
test-long: $(VENV)/test
	$(SAY) 'test-long: the tests that make test leaves out'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m long

# The manual, every warning an error (--quiet would hide them from --strict); nothing is loaded from elsewhere.
manual: $(VENV)/docs
	$(SAY) 'manual: mkdocs, about half a minute'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/manual

docs: manual
	@echo "the manual is in build/manual/; to read it: $(BIN)/mkdocs serve"

# What pages say about commands, settings and formats, after one of these changed.
reference: $(VENV)/test
	$(BIN)/python docs/generate.py

# The example notebooks, with what they show.
notebooks: demo $(VENV)/test
	$(SAY) 'notebooks: run the example notebooks; a few minutes'
	$(BIN)/python notebooks/execute.py

# The pictures of docs/gallery.md, each by the command that stands above it.
gallery: demo $(VENV)/test
	$(BIN)/python examples/corrosion.py -o build/gallery/corrosion
	$(BIN)/python examples/charging.py -o build/gallery/charging
	$(BIN)/python examples/gallery.py -o build/gallery

bench: $(VENV)/dev
	cd benchmarks && ../$(BIN)/asv machine --yes && ../$(BIN)/asv run --python=same --quick

# The wheel and the sdist in dist/, checked; then the wheel alone in an environment of its own, from an empty folder. Beside them what
# that environment holds: a bill of materials (CycloneDX), and the licences.
dist: $(VENV)/dev
	rm -rf dist build/dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/dist
	$(SAY) 'dist: install the wheel by itself: about 1.7 GB, 6.2 GB $(CUDA); $(PATIENCE)'
	$(subst $(BIN),build/dist/bin,$(PIP)) dist/*.whl
	packaging/smoke.sh $(CURDIR)/build/dist/bin/braggshot
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json build/dist/bin/python
	$(BIN)/pip-licenses --python=build/dist/bin/python --with-urls --output-file dist/licences.txt

# The versions that were tested together, with the hashes of their files. torch and what only it needs are left out: it has several builds.
OF_TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 \
	cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
lock: $(VENV)/dev
	$(BIN)/uv pip compile --quiet pyproject.toml --extra live --extra series --extra view -c constraints.txt --python-version 3.11 \
		--generate-hashes --no-annotate --no-header $(addprefix --no-emit-package ,$(OF_TORCH)) -o packaging/requirements.lock

# What takes seconds of make test, before each commit.
hooks: $(VENV)/dev
	$(BIN)/pre-commit install

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("braggshot needs Python 3.11 or newer") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) 'core: install what braggshot needs: about 1.7 GB, 6.2 GB $(CUDA); $(PATIENCE)'
	$(PIP) -e .
	touch $@

$(VENV)/live: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) 'live: install the core, detectors and page: about 1.9 GB, 6.4 GB $(CUDA); $(PATIENCE)'
	$(PIP) -e '.[live,view]'
	touch $(VENV)/core $@

$(VENV)/docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) 'docs: install the core and what builds the manual: about 1.8 GB, 6.3 GB $(CUDA); $(PATIENCE)'
	$(PIP) -e '.[docs]'
	touch $(VENV)/core $@

$(VENV)/test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) 'test: install all parts and the tools of the tests: about 2.7 GB, 7.2 GB $(CUDA); $(PATIENCE)'
	$(PIP) -e '.[test]'
	touch $(VENV)/core $(VENV)/docs $@

$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(SAY) 'dev: install all parts, the tools of tests, benchmarks, packages and hooks: about 2.8 GB, 7.3 GB $(CUDA); $(PATIENCE)'
	$(PIP) -e '.[dev]'
	touch $(VENV)/core $(VENV)/docs $(VENV)/test $@

clean:
	rm -rf $(VENV) demo-output build dist
