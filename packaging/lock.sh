#!/bin/sh
# Pins every package with its hashes, for macOS on Apple silicon and for Linux at once, without the address of any registry.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
[ -x "$uv" ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.13"

compile() {
    MACOSX_DEPLOYMENT_TARGET=14.0 "$uv" pip compile pyproject.toml --universal --python-version 3.11 --extra cpu --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet "$@"
}

compile --group build -o packaging/requirements.lock
compile --group dev --constraints packaging/requirements.lock -o packaging/requirements-dev.lock
