"""The Homebrew formula, evaluated without Homebrew: what `brew audit` does not look at in a tap, held here."""

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
def told(macos: str = TAHOE) -> dict[str, Any]:
    ended = evaluate(FORMULA, macos)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def pip_words(macos: str = TAHOE) -> list[str]:
    [run] = [words for words in told(macos)["install"] if "--require-hashes" in words]
    return run


def test_ruby_finds_nothing_wrong_with_it() -> None:
    checked = subprocess.run(
        ["ruby", "-wc", str(FORMULA)], capture_output=True, text=True, check=True
    )
    assert (checked.stdout.strip(), checked.stderr) == ("Syntax OK", "")


def test_its_lines_are_as_short_as_brew_style_wants_them() -> None:
    assert max(map(len, read("Formula/pensieve.rb").splitlines())) <= 118


def test_its_words_stand_in_homebrews_order() -> None:
    assert told()["order"] == ORDER


def test_its_description_is_as_homebrew_wants_it() -> None:
    desc = told()["desc"]
    assert len(f"pensieve: {desc}") <= 80
    assert desc[0].isupper()
    assert not desc.endswith(".")
    assert not re.match(r"(A|An|The|Pensieve)\b", desc, re.IGNORECASE)


def test_it_is_for_apple_silicon_from_macos_14_on() -> None:
    assert told()["depends_on"] == [{"arch": "arm64"}, {"macos": "sonoma"}, "python@3.14"]


def test_it_installs_this_version_of_this_project() -> None:
    version, license_id = pyproject()["project"]["version"], pyproject()["project"]["license"]
    home = f"https://github.com/{REPOSITORY}"
    assert told()["homepage"] == home
    assert told()["url"] == f"{home}/archive/refs/tags/v{version}.tar.gz"
    assert told()["head"] == [f"{home}.git", "main"]
    assert told()["license"] == license_id


def test_its_sha256_is_that_of_the_tag_once_there_is_one() -> None:
    version = pyproject()["project"]["version"]
    release = script("release")
    told_sha256 = told()["sha256"]
    if told_sha256 == release.PENDING:
        return  # not released yet, or the commit that the tag is on
    tag = f"refs/tags/v{version}"
    known = subprocess.run(["git", "rev-parse", "--verify", "--quiet", tag], cwd=ROOT, check=False)
    if known.returncode != 0:
        pytest.skip("a checkout without tags")
    prefix = f"{REPOSITORY.partition('/')[2]}-{version}"
    assert told_sha256 == release.archive_sha256(f"v{version}", prefix)


@pytest.mark.parametrize("macos", [SONOMA, TAHOE, GOLDEN_GATE])
def test_every_package_comes_by_its_hash_and_none_is_resolved(macos: str) -> None:
    words = pip_words(macos)
    assert words[:5] == ["system", "python3.14", "-m", "pip", "--python=LIBEXEC/bin/python"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(words)
    [lock] = [word.removeprefix("--requirement=") for word in words if "--requirement=" in word]
    assert (ROOT / lock).is_file()
    assert told(macos)["resources"] == {}


def test_the_build_backend_is_a_locked_one_too() -> None:
    [built] = [step for step in told()["install"] if step[0] == "pip_install_and_link"]
    assert built[2] == {"build_isolation": False}
    [needed] = pyproject()["build-system"]["requires"]
    assert needed in pyproject()["dependency-groups"]["formula"]


def test_nothing_of_homebrews_own_python_is_seen() -> None:
    [made] = [step for step in told()["install"] if step[0] == "virtualenv_create"]
    assert made == ["virtualenv_create", "LIBEXEC", "python3.14", {"system_site_packages": False}]


def test_its_program_starts_whatever_python_variables_the_user_has(tmp_path: Path) -> None:
    [installed, _, before, after] = next(s for s in told()["install"] if s[0] == "inreplace")
    assert (installed, before, after) == ("inreplace", r"\A#!.+$", r"\0 -I")
    script = Path(sys.executable).with_name("pensieve").read_text()
    program = tmp_path / "pensieve"
    program.write_text(re.sub(before, after.replace(r"\0", r"\g<0>"), script, flags=re.MULTILINE))
    program.chmod(0o755)
    variables = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    ended = subprocess.run(
        [program, "--version"], env=variables, capture_output=True, text=True, check=False
    )
    assert (ended.stdout[:9], ended.stderr) == ("pensieve ", "")


def test_libraries_are_mended_where_macos_refuses_them() -> None:
    module = "pensieve.engine.grammar.macho"
    mend = ["system", "LIBEXEC/bin/python", "-I", "-m", module, "LIBEXEC"]
    assert mend not in told(TAHOE)["install"]
    steps = told(GOLDEN_GATE)["install"]
    [installed] = [step for step in steps if step[0] == "pip_install_and_link"]
    assert steps.index(pip_words(GOLDEN_GATE)) < steps.index(installed) < steps.index(mend)
    assert importlib.util.find_spec(module)


def test_what_it_installs_beside_the_program_is_there() -> None:
    assert ["completions", "BIN/pensieve", "completion"] in told()["install"]
    [manual] = [step[1:] for step in told()["install"] if step[0] == "man1.install"]
    assert all((ROOT / file).is_file() for file in manual)
    named = re.findall(r'"(packaging/[^"]+)"|=(packaging/[^"]+)"', read("Formula/pensieve.rb"))
    assert len(named) == 1
    assert all((ROOT / (one or other)).is_file() for one, other in named)


def test_the_service_is_the_server_in_the_foreground() -> None:
    """KeepAlive → SuccessfulExit false: started again after a fault, left alone after `pensieve stop`."""
    assert told()["service"] == {
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


def test_launchd_gets_the_service_with_time_for_open_answers_to_end() -> None:
    assert plistlib.loads(told()["plist"].encode()) == {
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
    assert told()["service"]["stop_timeout"] > GRACE_S


def test_homebrew_writes_the_service_as_our_reading_of_it_does() -> None:
    """Skipped but where Homebrew has installed this formula, as the workflow does."""
    prefix = homebrew_prefix()
    if prefix is None:
        pytest.skip("no Homebrew with pensieve here")
    written = prefix / "opt" / "pensieve" / "homebrew.mxcl.pensieve.plist"
    ours = told()["plist"].replace("OPT_BIN", str(prefix / "opt" / "pensieve" / "bin"))
    ours = ours.replace("VAR", str(prefix / "var"))
    path = f"{prefix}/bin:{prefix}/sbin:/usr/bin:/bin:/usr/sbin:/sbin"
    ours = ours.replace("STD_PATH", path)
    assert plistlib.loads(written.read_bytes()) == plistlib.loads(ours.encode())


def homebrew_prefix() -> Path | None:
    """Where Homebrew keeps this formula; None where it does not."""
    brew = shutil.which("brew")
    if brew is None:
        return None
    prefix = subprocess.run([brew, "--prefix"], capture_output=True, text=True, check=True).stdout
    return Path(prefix.strip()) if (Path(prefix.strip()) / "opt" / "pensieve").is_dir() else None


def test_its_test_asks_the_installed_program_for_its_health() -> None:
    assert told()["test"] is True
    said = read("Formula/pensieve.rb").partition("test do")[2]
    assert "pensieve --version" in said
    assert "start" in said
    assert "/health" in said
    assert "free_port" in said
    assert "0.0.0.0" not in said


def test_no_address_but_the_projects_own_is_in_it() -> None:
    addresses = re.findall(r"https?://[^\s\"]+", read("Formula/pensieve.rb"))
    own = (f"https://github.com/{REPOSITORY}", "http://127.0.0.1:")
    assert addresses
    assert all(address.startswith(own) for address in addresses)


def test_its_caveats_name_commands_that_exist() -> None:
    caveats = told()["caveats"]
    named = set(re.findall(r"\bpensieve ([a-z]+)", caveats))
    assert "start" in named
    assert named <= {page.words[0] for page in script("manual").pages() if page.words}
    assert all(len(line) <= 100 for line in caveats.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  license", '  licence "MIT"\n  license', "licence"),
        ("  license", '  desc "Twice"\n  license', "desc twice"),
        ("  preserve_rpath", '  depends_on "python@3.14"\n  preserve_rpath', "twice"),
        ("    working_dir var", "    working_dir var\n    working_dir etc", "working_dir twice"),
        (
            "    working_dir var",
            "    work_dir var",
            "work_dir",
        ),
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
def test_the_stub_takes_no_word_that_homebrew_would_not(
    old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    text = read("Formula/pensieve.rb")
    assert old in text
    (tmp_path / "pensieve.rb").write_text(text.replace(old, new, 1))
    ended = evaluate(tmp_path / "pensieve.rb", GOLDEN_GATE)
    assert ended.returncode != 0
    assert complaint in ended.stderr
