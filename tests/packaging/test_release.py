"""`make release` in a small repository: its commits, tag and refusals."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.project import REPOSITORY as OWN_REPOSITORY
from tests.packaging.project import ROOT, read, script

release = script("release")

REPOSITORY = "someone/homebrew-pensieve"
CHANGELOG = f"""\
# Changelog

## [Unreleased]

### Added

- The first thing.

[Unreleased]: https://github.com/{REPOSITORY}/commits/main
"""
MAKEFILE = """\
.PHONY: lock test formula-check
lock:
\techo "locked $$(grep -c '' pyproject.toml)" > packaging/requirements-macos.lock
test formula-check:
\ttest ! -e broken
"""

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


@dataclass(frozen=True)
class Checkout:
    """A repository with the files that a release changes, and an instant Makefile."""

    root: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
        }
        return subprocess.run(
            arguments, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, str(ROOT / "packaging" / "release.py"), *arguments)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def at(self, commit: str, file: str) -> str:
        return self.git("show", f"{commit}:{file}")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    for name in ("pyproject.toml", "pensieve/__init__.py", "Formula/pensieve.rb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(read(name).replace(OWN_REPOSITORY, REPOSITORY))
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging" / "REPOSITORY").write_text(f"{REPOSITORY}\n")
    (tmp_path / "packaging" / "requirements-macos.lock").write_text("")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    checkout = Checkout(tmp_path)
    checkout.git("init", "--quiet", "--initial-branch", "main")
    checkout.commit()
    return checkout


def sha256_in(formula: str) -> str:
    return formula.partition('sha256 "')[2][:64]


def test_a_release_is_a_tagged_commit_and_one_more(checkout: Checkout) -> None:
    done = checkout.release("0.1.0")
    assert done.returncode == 0, done.stderr
    assert checkout.git("log", "--format=%s").splitlines()[:2] == [
        "Let the formula install 0.1.0",
        "Release 0.1.0",
    ]
    assert checkout.git("cat-file", "-t", "v0.1.0") == "tag"
    assert checkout.git("rev-parse", "v0.1.0^{}") == checkout.git("rev-parse", "HEAD~1")
    assert checkout.git("status", "--porcelain") == ""
    assert done.stdout.rstrip().endswith("git push --atomic origin main v0.1.0")
    assert checkout.at("v0.1.0", "packaging/requirements-macos.lock").startswith("locked ")


def test_the_tag_has_the_version_in_every_file(checkout: Checkout) -> None:
    assert checkout.release("1.2.3").returncode == 0
    assert '\nversion = "1.2.3"\n' in checkout.at("v1.2.3", "pyproject.toml")
    assert '__version__ = "1.2.3"' in checkout.at("v1.2.3", "pensieve/__init__.py")
    formula = checkout.at("v1.2.3", "Formula/pensieve.rb")
    assert f"https://github.com/{REPOSITORY}/archive/refs/tags/v1.2.3.tar.gz" in formula
    assert sha256_in(formula) == release.PENDING


def test_the_formula_gets_the_sha256_of_the_tags_archive(checkout: Checkout) -> None:
    assert checkout.release("0.1.0").returncode == 0
    pipeline = (
        "git archive --format=tar --prefix=homebrew-pensieve-0.1.0/ v0.1.0 | gzip -cn | sha256sum"
    )
    sha256 = checkout.run("sh", "-c", pipeline).stdout[:64]
    assert len(sha256) == 64
    assert sha256_in(checkout.at("HEAD", "Formula/pensieve.rb")) == sha256
    assert checkout.git("diff", "--stat", "HEAD~1").splitlines()[-1].startswith(" 1 file changed")


def test_the_changelog_gets_a_heading_and_comparison_links(checkout: Checkout) -> None:
    assert checkout.release("0.1.0").returncode == 0
    file = checkout.root / "CHANGELOG.md"
    file.write_text(
        file.read_text().replace("[Unreleased]\n", "[Unreleased]\n\n### Fixed\n\n- It.\n", 1)
    )
    checkout.commit()
    assert checkout.release("0.2.0").returncode == 0
    text = file.read_text()
    headings = [line[:14] for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## [Unreleased", "## [0.2.0] - 2", "## [0.1.0] - 2"]
    home = f"https://github.com/{REPOSITORY}"
    assert text.endswith(
        f"[Unreleased]: {home}/compare/v0.2.0...HEAD\n"
        f"[0.2.0]: {home}/compare/v0.1.0...v0.2.0\n"
        f"[0.1.0]: {home}/releases/tag/v0.1.0\n"
    )


def test_a_dry_run_shows_changes_without_making_them(checkout: Checkout) -> None:
    before = checkout.git("rev-parse", "HEAD")
    done = checkout.release("0.3.0", "--dry-run")
    assert done.returncode == 0
    assert '+version = "0.3.0"' in done.stdout
    assert "+## [0.3.0] - " in done.stdout
    assert "Nothing was changed." in done.stdout
    assert checkout.git("rev-parse", "HEAD") == before
    assert checkout.git("status", "--porcelain") == ""
    assert checkout.git("tag") == ""


def refusal(checkout: Checkout, version: str = "0.1.0") -> str:
    before = checkout.git("rev-parse", "HEAD"), checkout.git("tag")
    done = checkout.release(version)
    assert done.returncode == 1
    assert (checkout.git("rev-parse", "HEAD"), checkout.git("tag")) == before
    assert "Traceback" not in done.stderr
    return done.stderr


def test_uncommitted_changes_are_refused(checkout: Checkout) -> None:
    (checkout.root / "new").touch()
    assert "git stash" in refusal(checkout)


def test_failing_checks_are_refused_and_files_restored(checkout: Checkout) -> None:
    (checkout.root / "broken").touch()
    checkout.commit()
    assert "make test fails" in refusal(checkout)
    assert checkout.git("status", "--porcelain") == ""


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0rc1", "01.0.0"])
def test_an_invalid_version_is_refused(version: str, checkout: Checkout) -> None:
    assert "no version" in refusal(checkout, version)


def test_an_existing_or_earlier_version_is_refused(checkout: Checkout) -> None:
    checkout.git("tag", "v0.10.0")
    assert "v0.10.0 is there already." in refusal(checkout, "0.10.0")
    assert "later than 0.9.0" in refusal(checkout, "0.9.0")


def test_an_empty_unreleased_section_is_refused(checkout: Checkout) -> None:
    assert checkout.release("0.1.0").returncode == 0
    assert "nothing under [Unreleased]" in refusal(checkout, "0.2.0")


def test_an_undecided_repository_is_refused(checkout: Checkout) -> None:
    (checkout.root / "packaging" / "REPOSITORY").write_text("OWNER/pensieve\n")
    checkout.commit()
    assert "make repository NAME=" in refusal(checkout)


def test_make_repository_changes_every_url(checkout: Checkout) -> None:
    shutil.copy(ROOT / "packaging" / "repository.sh", checkout.root / "packaging")
    checkout.commit()
    assert REPOSITORY in (checkout.root / "Formula" / "pensieve.rb").read_text()
    done = checkout.run("sh", "packaging/repository.sh", "me/homebrew-tools")
    assert done.returncode == 0, done.stderr
    occurrences = checkout.run(
        "git", "grep", "-F", REPOSITORY, "--", "Formula", "CHANGELOG.md", "packaging"
    )
    assert occurrences.stdout == ""
    assert (checkout.root / "packaging" / "REPOSITORY").read_text() == "me/homebrew-tools\n"
    assert checkout.run("sh", "packaging/repository.sh", "no repository").returncode == 2
