# make demo: the whole journey on this machine, with a small real model. make test: everything that is checked.
.PHONY: demo test check format lock clean

bin := .venv/bin

demo: .venv/runtime.stamp
	@sh packaging/demo.sh

test: .venv/dev.stamp check
	$(bin)/python -m pytest

check: .venv/dev.stamp
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/basedpyright --pythonpath $(bin)/python

format: .venv/dev.stamp
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

lock:
	@sh packaging/lock.sh

clean:
	rm -rf .venv

.venv/runtime.stamp: packaging/requirements.lock pyproject.toml packaging/make-environment.sh
	@sh packaging/make-environment.sh packaging/requirements.lock
	@touch $@

.venv/dev.stamp: packaging/requirements-dev.lock pyproject.toml packaging/make-environment.sh
	@sh packaging/make-environment.sh packaging/requirements-dev.lock
	@touch $@ .venv/runtime.stamp
