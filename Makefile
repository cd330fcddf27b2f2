# Everything a developer does, one target each; `make help` lists them.
# Each target sets up what it needs: a virtual environment in .venv, and, as root on Debian, packages.

SHELL := /bin/bash
PYTHON ?= python3
PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
export PATH

# What tests use from the system; without root they skip what needs a missing one.
PACKAGES := e2fsprogs util-linux xfsprogs btrfs-progs fdisk faketime qemu-system-common
PACKAGES += ceph-mon ceph-osd ceph-common python3-rados python3-rbd
PACKAGES += nbdkit nbdkit-plugin-python libnbd-bin
BENCH_PACKAGES := debootstrap restic

# Without its cache, pip leaves nothing outside of this folder.
PIP := --quiet --disable-pip-version-check --no-cache-dir

# Minutes that `make torture` may take.
MINUTES ?= 60

.PHONY: help demo test lint types tests torture bench incremental ceph collection fleet compiled packages golden clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/installed ## Back up, change, restore and verify a real disk image, showing each command
	@bash doc/demo.sh

test: packages lint types tests ## Lint, types, floors and all tests (10 minutes at most)

lint: .venv/developing ## Style and import floors
	ruff check .
	ruff format --check .
	interrogate --quiet src tests bench
	lint-imports

types: .venv/developing ## Strict types
	mypy

# Parallel, since most tests wait for processes and syncs.
tests: .venv/developing compiled ## The tests alone
	pytest -n 2 --durations=10

torture: packages .venv/developing compiled ## Crash and damage tests for MINUTES=60; doc/torture-results.md
	PYTHONPATH=tests:bench python tests/torture.py $(MINUTES)

bench: packages .venv/installed compiled ## Time backy and what else is installed on a real VM's disk (root)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tests/packages.sh $(BENCH_PACKAGES); fi
	python bench/run.py $(BENCH)

incremental: packages .venv/installed compiled ## Changed extents, deltas, thirty days; after bench, as root
	PYTHONPATH=bench python bench/incremental.py $(INCREMENTAL)

ceph: packages .venv/developing compiled ## Backups of and restores to Ceph against rbd's own tools (root, 10 GiB)
	PYTHONPATH=tests:bench python bench/ceph.py $(CEPH)

collection: .venv/installed compiled ## Garbage collection of ten million chunks (10 minutes, as many inodes)
	PYTHONPATH=bench python bench/collection.py $(COLLECTION)

fleet: .venv/installed compiled ## The scheduler with 10,000 jobs, and simulated months (2 minutes)
	python bench/fleet.py
	python bench/simulate.py

# As an installation does, also where PYTHONDONTWRITEBYTECODE is set; or each command compiles itself.
compiled: .venv/installed
	@python -m compileall -q src

packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tests/packages.sh $(PACKAGES); fi

golden: .venv/developing ## Write a new golden store (after a format change only)
	PYTHONPATH=tests python tests/golden/make_store.py

clean: ## Remove everything that the targets made
	rm -rf .venv demo bench/work build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install $(PIP) --editable .
	touch $@

.venv/developing: .venv/installed
	.venv/bin/pip install $(PIP) --editable '.[dev]'
	touch $@
