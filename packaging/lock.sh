#!/bin/sh
# Pin every package with its hashes and without registry URLs: for development on any machine
# (Python 3.11 and newer) and for the Homebrew formula (macOS on Apple silicon, Python 3.14), in the
# same versions. Pinned versions stay while they fit; `packaging/lock.sh --upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
[ -x "$uv" ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.13"
[ "${1:-}" != --upgrade ] || rm -f packaging/requirements*.lock

compile() {
    "$uv" pip compile pyproject.toml --generate-hashes --no-emit-index-url --no-emit-find-links \
        --no-header --no-annotate --quiet "$@"
}

for_any_machine() {
    MACOSX_DEPLOYMENT_TARGET=14.0 compile --universal --python-version 3.11 --extra cpu "$@"
}

# usage: for_homebrew MACOS …   Without the variable uv assumes macOS 13 and picks an old mlx.
for_homebrew() {
    macos=$1
    shift
    MACOSX_DEPLOYMENT_TARGET=$macos compile --python-platform aarch64-apple-darwin \
        --python-version 3.14 --only-binary :all: \
        --group formula --constraints packaging/requirements.lock "$@"
}

for_any_machine --group build -o packaging/requirements.lock
for_any_machine --group dev --constraints packaging/requirements.lock \
    -o packaging/requirements-dev.lock
for_homebrew 14.0 -o packaging/requirements-macos.lock

newest=$(mktemp)
trap 'rm -f "$newest"' EXIT
cp packaging/requirements-macos.lock "$newest"
for_homebrew 26.0 -o "$newest"
cmp "$newest" packaging/requirements-macos.lock || {
    echo "macOS 14 and macOS 26 get different versions; the formula has one lock for both." >&2
    exit 1
}
