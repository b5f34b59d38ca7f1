"""Make a release in the only possible order.

usage: make release VERSION=X.Y.Z [DRY_RUN=1]
1. Write the version to pyproject.toml, pensieve/__init__.py, CHANGELOG.md and the formula's URL;
   lock and run all checks.
2. Commit and tag.
3. Write the tag's sha256 into the formula in another commit: a tag cannot contain its own hash.
   The tap follows main.

Nothing leaves this machine; the last line shows how to push. The sha256 is that of the archive that
GitHub makes of the tag: `git archive` through GNU gzip gives the same bytes.
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
    """The release cannot be made. The message has the cause and the remedy."""


def git(*arguments: str) -> str:
    """Run git and return its output. Raise `RefusedError` if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RefusedError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def check_ready(version: str, repository: str) -> None:
    """Raise `RefusedError` if the release would be wrong."""
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
    """Raise `RefusedError` unless gzip is GNU's: that of macOS writes other bytes."""
    command = ["gzip", "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not version.startswith("gzip "):
        raise RefusedError("This gzip is not GNU's, whose bytes GitHub serves: brew install gzip")


def _numbers(version: str) -> tuple[int, ...]:
    match = VERSION.fullmatch(version.removeprefix("v"))
    return tuple(map(int, match.groups())) if match else ()


def bumped(texts: Texts, version: str, repository: str, today: str) -> dict[str, str]:
    """Return the files of the tag. Raise `RefusedError` if one has another form."""
    url = f'url "https://github.com/{repository}/archive/refs/tags/v{version}.tar.gz"'
    return {
        "pyproject.toml": _replaced(
            texts, "pyproject.toml", r'^version = ".*"$', f'version = "{version}"'
        ),
        "pensieve/__init__.py": _replaced(
            texts, "pensieve/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"'
        ),
        "Formula/pensieve.rb": _with_sha256(
            _replaced(texts, "Formula/pensieve.rb", r'(?<=^  )url ".*/archive/.*"$', url),
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
    """Return the changelog with the unreleased section under its version, and comparison links."""
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
    """Return the sha256 of the archive that GitHub makes of a tag."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", f"--prefix={prefix}/", tag],
        capture_output=True,
        check=True,
    ).stdout
    packed = subprocess.run(["gzip", "-cn"], input=archive, capture_output=True, check=True).stdout
    return hashlib.sha256(packed).hexdigest()


def release(version: str, repository: str, show: Callable[[str], object]) -> None:
    """Do the three steps. Raise `RefusedError`, with the changes of step 1 undone."""
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
    show(f"{version} is made. It goes out with: git push --atomic origin {branch} v{version}")


def preview(version: str, repository: str, show: Callable[[str], object]) -> None:
    """Show the changes of step 1 without making them."""
    texts = _read()
    for name, text in bumped(texts, version, repository, f"{datetime.now(UTC):%Y-%m-%d}").items():
        lines = difflib.unified_diff(
            texts[name].splitlines(), text.splitlines(), name, name, n=0, lineterm=""
        )
        show("\n".join(lines))
    show("\nThen: make lock, make test, make formula-check, commit, tag, sha256, commit.")
    show("Nothing was changed.")


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
    parser = argparse.ArgumentParser(description="Make a release; run it in the root folder.")
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    repository = Path("packaging/REPOSITORY").read_text(encoding="utf-8").strip()
    try:
        check_ready(arguments.version, repository)
        (preview if arguments.dry_run else release)(arguments.version, repository, print)
    except RefusedError as refused:
        sys.stderr.write(f"No release: {refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
