# make demo: start, question and stop with a small real model. make test: all checks and tests.
# make test-claude: the tests with the real Claude Code. make brew: install this checkout with
# Homebrew, with its service.
.PHONY: demo brew test test-claude check types types-darwin format lock mutants docs
.PHONY: screenshots formula-check release repository clean

bin := .venv/bin

demo: .venv/runtime.stamp
	@sh packaging/demo.sh

brew:
	@sh packaging/brew-here.sh

# For two cores: a quarter of the time, a test waits for another process.
PROCESSES := 3

test: .venv/dev.stamp check
	$(bin)/python -m pytest --numprocesses $(PROCESSES)

test-claude: .venv/dev.stamp
	$(bin)/python -m pytest tests/claude

check: .venv/dev.stamp
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types types-darwin

# Each uses one core for half a minute; the second checks the code for macOS.
types: .venv/dev.stamp
	$(bin)/basedpyright --pythonpath $(bin)/python

types-darwin: .venv/dev.stamp
	$(bin)/basedpyright --pythonpath $(bin)/python --pythonplatform Darwin

format: .venv/dev.stamp
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

lock: .venv/dev.stamp
	@sh packaging/lock.sh

# Mutation testing; takes minutes for a module:
#   make mutants MODULE="pensieve/reply/tool_call_parser.py" TESTS="tests/reply -k call"
# PENSIEVE_LAW_EXAMPLES=5 shortens tests/dialects.
MODULE := pensieve/reply
TESTS := tests/reply

mutants: .venv/dev.stamp
	@$(bin)/python packaging/mutants.py "$(MODULE)" "$(TESTS)"

# docs/commands.md and the man page, from the help of the commands.
docs: .venv/dev.stamp
	@PYTHONPATH=. $(bin)/python packaging/manual.py

# docs/images/, recorded from real commands. Needs tmux, Chromium, node, and port 7777 free.
screenshots: .venv/dev.stamp
	@$(bin)/python packaging/screenshots.py
	@PYTHONPATH=. $(bin)/python packaging/page_images.py

# What brew's own audit skips; and once per lock the wheels for macOS (a download of 210 MB).
formula-check: .venv/dev.stamp
	$(bin)/python -m pytest tests/packaging
	$(bin)/python packaging/wheels.py

release: .venv/dev.stamp
	@$(bin)/python packaging/release.py $(if $(DRY_RUN),--dry-run) "$(VERSION)"

repository:
	@sh packaging/repository.sh "$(NAME)"

clean:
	rm -rf .venv

.venv/runtime.stamp: packaging/requirements.lock pyproject.toml packaging/make-environment.sh
	@sh packaging/make-environment.sh packaging/requirements.lock
	@touch $@

.venv/dev.stamp: packaging/requirements-dev.lock pyproject.toml packaging/make-environment.sh
	@sh packaging/make-environment.sh packaging/requirements-dev.lock
	@touch $@ .venv/runtime.stamp
