"""Makes a release, in the one order in which it can be made. usage: make release VERSION=X.Y.Z [DRY_RUN=1]

1. The version goes into pyproject.toml and pensieve/__init__.py, CHANGELOG.md's Unreleased section gets its heading, the
   formula the new address; everything is locked anew and checked.
2. That is committed and tagged.
3. The formula gets the tag's sha256 in a commit after it: a tag cannot hold its own hash. Whoever follows the tap follows main.

Nothing leaves this machine; the last line says how to push. The sha256 is that of the archive that GitHub will make of the
tag, computed here: `git archive` through GNU gzip gives the same bytes.
"""

import argparse
import difflib
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

PENDING = "0" * 64
UNDECIDED = "OWNER/"
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")

Texts = Mapping[str, str]


class RefusedError(Exception):
    """The release cannot be made; the text says why and what to do."""


def git(*words: str) -> str:
    """What git says. Raises `RefusedError` where it fails."""
    ended = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RefusedError(f"git {' '.join(words)} failed: {ended.stderr.strip()}")
    return ended.stdout.strip()


def check_ready(version: str, repository: str) -> None:
    """Raises `RefusedError` for what would make a wrong release."""
    check_gzip()
    if not VERSION.fullmatch(version):
        raise RefusedError(f"{version!r} is no version: three numbers, as in 0.2.0.")
    if repository.startswith(UNDECIDED):
        raise RefusedError(
            "Where pensieve is published is not decided. Say it: make repository NAME=you/pensieve"
        )
    if git("status", "--porcelain"):
        raise RefusedError("The working tree has changes. Commit them, or put them away: git stash")
    tags = git("tag", "--list", "v*").split()
    if f"v{version}" in tags:
        raise RefusedError(f"v{version} is there already.")
    later = [tag for tag in tags if _numbers(tag) > _numbers(version)]
    if later:
        raise RefusedError(f"{later[-1]} is there already, which is later than {version}.")


def check_gzip() -> None:
    """macOS has another gzip, which packs the same into other bytes. Raises `RefusedError`."""
    told = subprocess.run(["gzip", "--version"], capture_output=True, text=True, check=False).stdout
    if not told.startswith("gzip "):
        raise RefusedError("This gzip is not GNU's, whose bytes GitHub serves: brew install gzip")


def _numbers(version: str) -> tuple[int, ...]:
    found = VERSION.fullmatch(version.removeprefix("v"))
    return tuple(map(int, found.groups())) if found else ()


def bumped(texts: Texts, version: str, repository: str, today: str) -> dict[str, str]:
    """The files as the tag has them. Raises `RefusedError` where one is not as expected."""
    address = f'url "https://github.com/{repository}/archive/refs/tags/v{version}.tar.gz"'
    return {
        "pyproject.toml": _replaced(
            texts, "pyproject.toml", r'^version = ".*"$', f'version = "{version}"'
        ),
        "pensieve/__init__.py": _replaced(
            texts, "pensieve/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"'
        ),
        "Formula/pensieve.rb": _with_sha256(
            _replaced(texts, "Formula/pensieve.rb", r'(?<=^  )url ".*/archive/.*"$', address),
            PENDING,
        ),
        "CHANGELOG.md": released(texts["CHANGELOG.md"], version, repository, today),
    }


def _replaced(texts: Texts, name: str, pattern: str, line: str) -> str:
    text, count = re.subn(pattern, lambda _: line, texts[name], flags=re.MULTILINE)
    if count != 1:
        raise RefusedError(f"{name} has {count} lines like {pattern}, not one.")
    return text


def _with_sha256(formula: str, sha256: str) -> str:
    return _replaced({"formula": formula}, "formula", r'(?<=^  )sha256 ".*"$', f'sha256 "{sha256}"')


def released(changelog: str, version: str, repository: str, today: str) -> str:
    """Keep a Changelog's form: what was unreleased under its version and day, and the links that compare."""
    before, heading, after = changelog.partition("## [Unreleased]\n")
    entries = re.split(r"^(?:## |\[Unreleased\]:)", after, maxsplit=1, flags=re.MULTILINE)[0]
    if not heading or "- " not in entries:
        raise RefusedError("CHANGELOG.md has nothing under [Unreleased] to release.")
    earlier = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", after, flags=re.MULTILINE)
    home = f"https://github.com/{repository}"
    compared = f"compare/v{earlier[0]}...v{version}" if earlier else f"releases/tag/v{version}"
    links = f"[Unreleased]: {home}/compare/v{version}...HEAD\n[{version}]: {home}/{compared}"
    body = _replaced({"CHANGELOG.md": after}, "CHANGELOG.md", r"^\[Unreleased\]: .*$", links)
    return f"{before}{heading}\n## [{version}] - {today}\n{body}"


def archive_sha256(tag: str, prefix: str) -> str:
    """Of the archive that GitHub makes of a tag."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", f"--prefix={prefix}/", tag],
        capture_output=True,
        check=True,
    ).stdout
    packed = subprocess.run(["gzip", "-cn"], input=archive, capture_output=True, check=True).stdout
    return hashlib.sha256(packed).hexdigest()


def release(version: str, repository: str, say: Callable[[str], object]) -> None:
    """The three steps. Raises `RefusedError`; what step 1 changed is then undone."""
    texts = _read()
    new = bumped(texts, version, repository, f"{datetime.now(UTC):%Y-%m-%d}")
    try:
        _write(new)
        _make("lock")
        _make("test")
        _make("formula-check")
    except BaseException:
        git("checkout", "--", ".")
        raise
    git("commit", "--all", "--message", f"Release {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"pensieve {version}")
    sha256 = archive_sha256(f"v{version}", f"{repository.partition('/')[2]}-{version}")
    _write({"Formula/pensieve.rb": _with_sha256(new["Formula/pensieve.rb"], sha256)})
    git("commit", "--all", "--message", f"Let the formula install {version}")
    branch = git("branch", "--show-current")
    say(f"{version} is made. It goes out with: git push --atomic origin {branch} v{version}")


def preview(version: str, repository: str, say: Callable[[str], object]) -> None:
    """The changes of step 1, without making them."""
    texts = _read()
    for name, text in bumped(texts, version, repository, f"{datetime.now(UTC):%Y-%m-%d}").items():
        lines = difflib.unified_diff(
            texts[name].splitlines(), text.splitlines(), name, name, n=0, lineterm=""
        )
        say("\n".join(lines))
    say("\nThen: make lock, make test, make formula-check, commit, tag, sha256, commit.")
    say("Nothing was changed.")


def _read() -> dict[str, str]:
    names = ("pyproject.toml", "pensieve/__init__.py", "Formula/pensieve.rb", "CHANGELOG.md")
    return {name: Path(name).read_text(encoding="utf-8") for name in names}


def _write(texts: Texts) -> None:
    for name, text in texts.items():
        Path(name).write_text(text, encoding="utf-8")


def _make(target: str) -> None:
    if subprocess.run(["make", target], check=False).returncode != 0:
        raise RefusedError(f"make {target} fails. Nothing was changed.")


def main() -> int:
    """Runs in the repository's root."""
    parser = argparse.ArgumentParser(description="Makes a release.")
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args()
    repository = Path("packaging/REPOSITORY").read_text(encoding="utf-8").strip()
    try:
        check_ready(asked.version, repository)
        (preview if asked.dry_run else release)(asked.version, repository, print)
    except RefusedError as refused:
        sys.stderr.write(f"No release: {refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
