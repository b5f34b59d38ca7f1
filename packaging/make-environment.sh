#!/bin/sh
# Make .venv, install the packages of a lock file by hash, then pensieve from this folder.
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
    cat >&2 <<END
pensieve needs Python 3.11 or newer; found: ${found:-none}.
Install one (macOS: brew install python@3.14; Debian: apt-get install python3 python3-venv),
or name one: make PYTHON=/path/to/python3
END
    exit 1
}

if ! [ -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv >/dev/null 2>&1 || {
        rm -rf .venv
        # Debian has venv's pip in a separate package; a Python with pip can install it.
        if "$python" -m venv --without-pip .venv &&
            "$python" -m pip --python .venv/bin/python install -q pip 2>/dev/null; then
            :
        else
            rm -rf .venv
            echo "This Python cannot make environments with pip." >&2
            echo "On Debian: apt-get install python3-venv" >&2
            exit 1
        fi
    }
fi
is_new_enough .venv/bin/python || {
    echo "The Python in .venv is older than 3.11; remove the folder .venv and try again." >&2
    exit 1
}
echo "Installing the packages of $lock into .venv …" >&2
install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$@"; }
# Python compiles modules at import; compiling all of them here takes twice as long as installing.
install --no-compile --require-hashes --only-binary :all: -r "$lock"
install --no-build-isolation --editable .
[ "$(uname -s)" = Darwin ] || exit 0
macos=$(sw_vers -productVersion | cut -d . -f 1)
# macOS 27 refuses libraries with a misaligned string table, as llguidance's.
if [ "$macos" -ge 27 ]; then
    .venv/bin/python -P -m pensieve.engine.grammar.macho .venv
fi
# pip uses the macOS version that Python reports; a Python built for an older macOS reports 16.
reported=$(.venv/bin/python -c 'import platform; print(platform.mac_ver()[0].partition(".")[0])')
[ "$reported" = "$macos" ] || cat >&2 <<END
This Python was built for an older macOS: it reports macOS $macos as $reported, so that the
installed MLX lacks the kernels for M5. Use another Python:
brew install python@3.14, rm -rf .venv, make PYTHON=python3.14 demo
END
