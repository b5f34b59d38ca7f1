#!/bin/sh
# Makes .venv and installs what a lock file names, hash by hash, then pensieve itself from this folder.
# usage: packaging/make-environment.sh LOCK   (PYTHON=… chooses the interpreter)
set -eu
cd "$(dirname "$0")/.."
lock=$1

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    found=$(${PYTHON:-python3} --version 2>&1 || true)
    echo "pensieve needs Python 3.11 or newer; here is: ${found:-none}. Install one (macOS: brew install python@3.14; Debian: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3" >&2
    exit 1
}

if ! [ -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv >/dev/null 2>&1 || {
        rm -rf .venv
        # Debian keeps venv's pip in a package of its own; a Python that has pip can lend it.
        if "$python" -m venv --without-pip .venv && "$python" -m pip --python .venv/bin/python install -q pip 2>/dev/null; then
            :
        else
            rm -rf .venv
            echo "This Python cannot make environments with pip in them. On Debian: apt-get install python3-venv" >&2
            exit 1
        fi
    }
fi
is_new_enough .venv/bin/python || {
    echo "The environment in .venv has a Python older than 3.11; remove the folder .venv and try again." >&2
    exit 1
}
echo "Installing what $lock names into .venv …" >&2
# Python compiles what it imports by itself; compiling all of it here takes twice as long as installing it.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps --only-binary :all: -r "$lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
[ "$(uname -s)" = Darwin ] || exit 0
macos=$(sw_vers -productVersion | cut -d . -f 1)
# macOS 27 loads no library whose string table is misaligned, as llguidance's is.
if [ "$macos" -ge 27 ]; then
    .venv/bin/python -P -m pensieve.engine.grammar.macho .venv
fi
# pip goes by what Python calls the system; one built for an older macOS calls 26 and later 16.
called=$(.venv/bin/python -c 'import platform; print(platform.mac_ver()[0].partition(".")[0])')
[ "$called" = "$macos" ] ||
    echo "This Python was built for an older macOS: it calls macOS $macos $called, and got an MLX without the kernels for M5. For another: brew install python@3.14, rm -rf .venv, make PYTHON=python3.14 demo" >&2
