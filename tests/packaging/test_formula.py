"""The Homebrew formula, evaluated without Homebrew; `brew audit` skips much of this in a tap."""

import importlib.util
import json
import plistlib
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pensieve.server.http.shutdown_grace import GRACE_S
from tests.packaging.project import REPOSITORY, ROOT, pyproject, read, script
from tests.support.programs import run_program

FORMULA = ROOT / "Formula" / "pensieve.rb"
DSL = Path(__file__).with_name("formula_dsl.rb")
ORDER = [
    *("desc", "homepage", "url", "sha256", "license", "head", "livecheck", "depends_on"),
    *("preserve_rpath", "install", "caveats", "service", "test"),
]
SONOMA, TAHOE, GOLDEN_GATE = "14", "26", "27"

pytestmark = pytest.mark.skipif(shutil.which("ruby") is None, reason="no ruby here")


def evaluate(formula: Path, macos: str) -> subprocess.CompletedProcess[str]:
    command = ["ruby", str(DSL), str(formula), macos]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def facts(macos: str = TAHOE) -> dict[str, Any]:
    done = evaluate(FORMULA, macos)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pip_command(macos: str = TAHOE) -> list[str]:
    [command] = [step for step in facts(macos)["install"] if "--require-hashes" in step]
    return command


def test_ruby_finds_no_syntax_error_or_warning() -> None:
    done = run_program(["ruby", "-wc", FORMULA])
    assert (done.stdout.strip(), done.stderr) == ("Syntax OK", "")


def test_lines_are_within_the_limit_of_brew_style() -> None:
    assert max(map(len, read("Formula/pensieve.rb").splitlines())) <= 118


def test_stanzas_are_in_homebrews_order() -> None:
    assert facts()["order"] == ORDER


def test_description_follows_homebrews_rules() -> None:
    desc = facts()["desc"]
    assert len(f"pensieve: {desc}") <= 80
    assert desc[0].isupper()
    assert not desc.endswith(".")
    assert not re.match(r"(A|An|The|Pensieve)\b", desc, re.IGNORECASE)


def test_formula_requires_apple_silicon_and_macos_14() -> None:
    assert facts()["depends_on"] == [{"arch": "arm64"}, {"macos": "sonoma"}, "python@3.14"]


def test_formula_installs_this_version_of_this_project() -> None:
    version, license_id = pyproject()["project"]["version"], pyproject()["project"]["license"]
    home = f"https://github.com/{REPOSITORY}"
    assert facts()["homepage"] == home
    assert facts()["url"] == f"{home}/archive/refs/tags/v{version}.tar.gz"
    assert facts()["head"] == [f"{home}.git", "main"]
    assert facts()["license"] == license_id


def test_sha256_is_that_of_the_tag_after_a_release() -> None:
    version = pyproject()["project"]["version"]
    release = script("release")
    sha256 = facts()["sha256"]
    if sha256 == release.PENDING:
        pytest.skip("not released, or the tagged commit itself")
    tag = f"refs/tags/v{version}"
    command = ["git", "rev-parse", "--verify", "--quiet", tag]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        pytest.skip("a checkout without tags")
    prefix = f"{REPOSITORY.partition('/')[2]}-{version}"
    assert sha256 == release.archive_sha256(f"v{version}", prefix)


@pytest.mark.parametrize("macos", [SONOMA, TAHOE, GOLDEN_GATE])
def test_packages_are_installed_by_hash_without_resolving(macos: str) -> None:
    command = pip_command(macos)
    assert command[:5] == ["system", "python3.14", "-m", "pip", "--python=LIBEXEC/bin/python"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(command)
    [lock] = [word.removeprefix("--requirement=") for word in command if "--requirement=" in word]
    assert (ROOT / lock).is_file()
    assert facts(macos)["resources"] == {}


def test_build_backend_is_locked_too() -> None:
    [built] = [step for step in facts()["install"] if step[0] == "pip_install_and_link"]
    assert built[2] == {"build_isolation": False}
    [needed] = pyproject()["build-system"]["requires"]
    assert needed in pyproject()["dependency-groups"]["formula"]


def test_environment_excludes_homebrews_site_packages() -> None:
    [made] = [step for step in facts()["install"] if step[0] == "virtualenv_create"]
    assert made == ["virtualenv_create", "LIBEXEC", "python3.14", {"system_site_packages": False}]


def test_program_starts_with_any_python_variables_of_the_user(tmp_path: Path) -> None:
    [installed, _, before, after] = next(s for s in facts()["install"] if s[0] == "inreplace")
    assert (installed, before, after) == ("inreplace", r"\A#!.+$", r"\0 -I")
    script = Path(sys.executable).with_name("pensieve").read_text()
    program = tmp_path / "pensieve"
    program.write_text(re.sub(before, after.replace(r"\0", r"\g<0>"), script, flags=re.MULTILINE))
    program.chmod(0o755)
    variables = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [program, "--version"], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.stdout[:9], done.stderr) == ("pensieve ", "")


def test_libraries_are_aligned_on_macos_that_refuses_them() -> None:
    module = "pensieve.engine.grammar.macho"
    align = ["system", "LIBEXEC/bin/python", "-I", "-m", module, "LIBEXEC"]
    assert align not in facts(TAHOE)["install"]
    steps = facts(GOLDEN_GATE)["install"]
    [installed] = [step for step in steps if step[0] == "pip_install_and_link"]
    assert steps.index(pip_command(GOLDEN_GATE)) < steps.index(installed) < steps.index(align)
    assert importlib.util.find_spec(module)


def test_installed_completions_manual_and_lock_exist() -> None:
    assert ["completions", "BIN/pensieve", "completion"] in facts()["install"]
    [manual] = [step[1:] for step in facts()["install"] if step[0] == "man1.install"]
    assert all((ROOT / file).is_file() for file in manual)
    pairs = re.findall(r'"(packaging/[^"]+)"|=(packaging/[^"]+)"', read("Formula/pensieve.rb"))
    assert len(pairs) == 1
    assert all((ROOT / (one or other)).is_file() for one, other in pairs)


def test_service_runs_the_server_in_the_foreground() -> None:
    """SuccessfulExit false: launchd restarts it after a fault, not after `pensieve stop`."""
    assert facts()["service"] == {
        "run": ["OPT_BIN/pensieve", "start", "--foreground"],
        "keep_alive": {"successful_exit": False},
        "throttle_interval": 30,
        "stop_timeout": 25,
        "process_type": "interactive",
        "working_dir": "VAR",
        "log_path": "VAR/log/pensieve.log",
        "error_log_path": "VAR/log/pensieve.log",
        "environment_variables": {"PATH": "STD_PATH"},
    }


def test_launchd_plist_gives_open_answers_time_to_end() -> None:
    assert plistlib.loads(facts()["plist"].encode()) == {
        "Label": "homebrew.mxcl.pensieve",
        "ProgramArguments": ["OPT_BIN/pensieve", "start", "--foreground"],
        "RunAtLoad": True,
        "ExitTimeOut": 25,
        "ThrottleInterval": 30,
        "ProcessType": "Interactive",
        "WorkingDirectory": "VAR",
        "StandardOutPath": "VAR/log/pensieve.log",
        "StandardErrorPath": "VAR/log/pensieve.log",
        "EnvironmentVariables": {"PATH": "STD_PATH"},
        "KeepAlive": {"SuccessfulExit": False},
        "LimitLoadToSessionType": ["Aqua", "Background", "LoginWindow", "StandardIO", "System"],
    }
    assert facts()["service"]["stop_timeout"] > GRACE_S


def test_plist_equals_that_of_an_installed_homebrew() -> None:
    """Runs only where Homebrew has installed this formula, as in the workflow."""
    prefix = homebrew_prefix()
    if prefix is None:
        pytest.skip("no Homebrew with pensieve here")
    installed = prefix / "opt" / "pensieve" / "homebrew.mxcl.pensieve.plist"
    ours = facts()["plist"].replace("OPT_BIN", str(prefix / "opt" / "pensieve" / "bin"))
    ours = ours.replace("VAR", str(prefix / "var"))
    path = f"{prefix}/bin:{prefix}/sbin:/usr/bin:/bin:/usr/sbin:/sbin"
    ours = ours.replace("STD_PATH", path)
    assert plistlib.loads(installed.read_bytes()) == plistlib.loads(ours.encode())


def homebrew_prefix() -> Path | None:
    brew = shutil.which("brew")
    if brew is None:
        return None
    prefix = Path(run_program([brew, "--prefix"]).stdout.strip())
    return prefix if (prefix / "opt" / "pensieve").is_dir() else None


def test_formulas_test_requests_health_of_the_installed_program() -> None:
    assert facts()["test"] is True
    block = read("Formula/pensieve.rb").partition("test do")[2]
    assert "pensieve --version" in block
    assert "start" in block
    assert "/health" in block
    assert "free_port" in block
    assert "0.0.0.0" not in block


def test_formula_has_only_the_projects_own_urls() -> None:
    addresses = re.findall(r"https?://[^\s\"]+", read("Formula/pensieve.rb"))
    own = (f"https://github.com/{REPOSITORY}", "http://127.0.0.1:")
    assert addresses
    assert all(address.startswith(own) for address in addresses)


def test_caveats_name_existing_commands() -> None:
    caveats = facts()["caveats"]
    commands = set(re.findall(r"\bpensieve ([a-z]+)", caveats))
    assert "start" in commands
    assert commands <= {page.words[0] for page in script("manual").pages() if page.words}
    assert all(len(line) <= 100 for line in caveats.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  license", '  licence "MIT"\n  license', "licence"),
        ("  license", '  desc "Twice"\n  license', "desc twice"),
        ("  preserve_rpath", '  depends_on "python@3.14"\n  preserve_rpath', "twice"),
        ("    working_dir var", "    working_dir var\n    working_dir etc", "working_dir twice"),
        ("    working_dir var", "    work_dir var", "work_dir"),
        (":interactive", ":fast", "process_type fast"),
        ("successful_exit: false", "sometimes: true", "keep_alive"),
        ("stop_timeout 25", 'stop_timeout "25"', "stop_timeout"),
        (":golden_gate", ":golden_gates", "key not found"),
        ("  preserve_rpath", '  resource "a" do\n url "x"\n end\n  preserve_rpath', "without url"),
        (
            "  preserve_rpath",
            '  2.times { resource("a") { url "x"; sha256 "y" } }\n  preserve_rpath',
            "resource a twice",
        ),
        ("  test do", "  trial do", "trial"),
        ("man1.install", "man9.install", "man9"),
    ],
)
def test_invalid_formulas_are_refused(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    text = read("Formula/pensieve.rb")
    assert old in text
    (tmp_path / "pensieve.rb").write_text(text.replace(old, new, 1))
    done = evaluate(tmp_path / "pensieve.rb", GOLDEN_GATE)
    assert done.returncode != 0
    assert complaint in done.stderr
