"""`make brew`: the local tap that it writes, and its calls of a `brew` that only records them."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.packaging.project import ROOT, pyproject, read
from tests.support.programs import run_program

BREW = """#!/bin/sh
case $1 in
    --repository | --prefix) echo "$BREW" ;;
    *) echo "$@" >>"$BREW/calls" ;;
esac
"""
NAME = "local/pensieve/pensieve"

pytestmark = pytest.mark.skipif(shutil.which("shasum") is None, reason="no shasum here")


class Checkout:
    """A repository with this project's formula, and its own Homebrew."""

    def __init__(self, folder: Path) -> None:
        self.path, self.brew = folder / "a checkout", folder / "homebrew"
        (self.brew / "bin").mkdir(parents=True)
        program = self.brew / "bin" / "brew"
        program.write_text(BREW)
        program.chmod(0o755)
        for name in ("pyproject.toml", "Formula/pensieve.rb", "packaging/brew-here.sh"):
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.path / name)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        return run_program(["git", *identity, *arguments], cwd=self.path).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change")
        return self.git("rev-parse", "HEAD")

    def run(self, path: str | None = None) -> subprocess.CompletedProcess[str]:
        tools = path or f"{self.brew / 'bin'}:{os.environ['PATH']}"
        script = str(self.path / "packaging" / "brew-here.sh")
        return subprocess.run(
            ["/bin/sh", script],
            env={"PATH": tools, "BREW": str(self.brew), "HOME": str(self.brew)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def tap(self) -> Path:
        return self.brew / "Library" / "Taps" / "local" / "homebrew-pensieve"

    @property
    def formula(self) -> str:
        return (self.tap / "Formula" / "pensieve.rb").read_text(encoding="utf-8")

    @property
    def archives(self) -> list[Path]:
        return list(self.tap.rglob("*.tar.gz"))

    @property
    def brew_calls(self) -> list[str]:
        return (self.brew / "calls").read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_tap_has_this_formula_with_an_archive_of_the_commit(
    checkout: Checkout,
) -> None:
    (checkout.path / "unfinished").write_text("not committed")
    done = checkout.run()
    assert (done.returncode, checkout.brew_calls) == (0, [f"install --formula {NAME}"]), done.stderr
    assert "not committed is not installed" in done.stderr
    [archive] = checkout.archives
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    changed = set(checkout.formula.splitlines()) - set(read("Formula/pensieve.rb").splitlines())
    assert changed == {f'  url "file://{archive}"', f'  sha256 "{sha256}"'}
    prefix = f"pensieve-{pyproject()['project']['version']}"
    with tarfile.open(archive) as opened:
        assert f"{prefix}/Formula/pensieve.rb" in opened.getnames()
        assert f"{prefix}/unfinished" not in opened.getnames()


def test_a_later_commit_has_another_url_and_is_reinstalled(checkout: Checkout) -> None:
    checkout.run()
    first = checkout.archives
    (checkout.brew / "opt" / "pensieve").mkdir(parents=True)
    commit = checkout.commit()
    done = checkout.run()
    assert checkout.brew_calls[-1] == f"reinstall --formula {NAME}"
    assert "brew services restart pensieve" in done.stdout
    [archive] = checkout.archives
    assert archive.parent.name == commit
    assert [archive] != first


def test_without_homebrew_the_error_names_make_demo(checkout: Checkout) -> None:
    done = checkout.run(path="/usr/bin:/bin")
    assert done.returncode == 1
    assert re.search(r"Homebrew is not installed.*make demo", done.stderr)
    assert not checkout.tap.exists()
