# Every target does its own set-up on a fresh machine, see tools/setup. As root it installs missing
# system packages; otherwise it says which are missing and goes on.

.PHONY: help setup build test lint demo wheel clean

help:
	@echo "make demo    build, then serve HTTP between two virtual hosts and compare with the kernel"
	@echo "make test    all checks and tests, with a count at the end (only some: STAGES='clippy pytest')"
	@echo "make lint    the checks alone, without tests"
	@echo "make build   the native module, into .venv"
	@echo "make wheel   an abi3 wheel in dist/, tried out in an empty virtual environment"
	@echo "make clean   remove what was built"

setup:
	@tools/setup

build:
	@tools/setup build

test: build
	@.venv/bin/python tools/run_tests.py $(STAGES)

lint: setup
	@.venv/bin/python tools/run_tests.py rustfmt clippy ruff-check ruff-format mypy

# For example: make demo ARGS="--full --json demo.json"
demo: build
	@.venv/bin/millrace demo $(ARGS)

wheel: setup
	@tools/wheel

clean:
	rm -rf target dist .venv
