"""The pages name files, links, commands, options, settings and `make` targets that exist.

The code cites only files of this repository.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest

from pensieve.settings.spec import KEYS
from tests.packaging.project import ROOT, read, script

PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("benchmarks/README.md", "benchmarks/RESULTS.md"),
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
]
# What a person reads first: its first lines say what it is for.
TITLE = re.compile(r"# .+\n\n(?:<!--.*-->\n\n)?\w.+")
PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|sh|yml)|(?:[\w-]+/)+)(?:::\w+)?`")
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")
BLOCK = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
CITED = re.compile(r"(?:[\w-]+/)*[\w-]+\.md\b")
# Names of files in examples and of other projects, in tests and in a snapshot of a model.
EXAMPLES = {"README.md", "a.md", "story.md"}


@pytest.mark.parametrize("name", PAGES)
def test_page_begins_with_a_title_and_what_it_is_for(name: str) -> None:
    assert TITLE.match(read(name))


@pytest.mark.parametrize("name", PAGES)
def test_every_path_on_a_page_exists(name: str) -> None:
    places = (ROOT, ROOT / "pensieve")
    missing = [
        path for path in PATH.findall(read(name)) if not any((p / path).exists() for p in places)
    ]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_every_module_that_a_page_runs_exists(name: str) -> None:
    modules = re.findall(r"python -m ((?:benchmarks|tests|pensieve)[\w.]*)", read(name))
    missing = [
        module for module in modules if not (ROOT / f"{module.replace('.', '/')}.py").exists()
    ]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    for path, anchor in LINK.findall(read(name)):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{path}#{anchor}"


def anchors(text: str) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_command_on_a_page_exists_with_its_options(name: str) -> None:
    assert [(line, fault) for line in commands_on(read(name)) if (fault := fault_of(line))] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("start --port 8080", ""),
        ("config set port 8080", ""),
        ("claude --continue", ""),
        ("launch codex --search", ""),
        ("help", "no command help"),
        ("start --prot 8080", "no option --prot"),
    ],
)
def test_unknown_commands_and_options_are_noticed(line: str, fault: str) -> None:
    assert fault_of(line) == fault


def test_commands_of_a_page_are_found() -> None:
    block = 'eval "$(pensieve env)"  # sets\n$ pensieve logs -f\n'
    text = f"Try `pensieve stop --force`:\n\n```\n{block}```\n"
    assert list(commands_on(text)) == ["env", "logs -f", "stop --force"]


def commands_on(text: str) -> Iterator[str]:
    """Return what follows `pensieve` in the code of a page."""
    code = [*BLOCK.findall(text), *INLINE.findall(BLOCK.sub("", text))]
    for line in "\n".join(code).splitlines():
        for found in re.findall(r"(?:^|[|(&] ?|\$ )pensieve ([a-z][^#|)&\"]*)", line.strip()):
            yield found.strip()


def fault_of(line: str) -> str:
    """Return why `pensieve line` cannot be run, or nothing."""
    words = line.split()
    options = known()
    if words[0] not in options:
        return f"no command {words[0]}"
    # All but its own options go to Claude Code or another agent.
    if words[0] in {"claude", "launch"}:
        return ""
    used = [word.partition("=")[0] for word in words if word.startswith("-")]
    unknown = [option for option in used if option not in options[words[0]]]
    return f"no option {unknown[0]}" if unknown else ""


@cache
def known() -> dict[str, set[str]]:
    """Return the options of each command, those of its subcommands included."""
    found: dict[str, set[str]] = {"ls": {"--json"}, "ps": {"--json"}}
    for page in script("manual").pages():
        for _, rows in page.groups:
            words = {word.strip(",") for label, _ in rows for word in label.split()}
            found.setdefault(page.words[0] if page.words else "", set()).update(words)
        found.setdefault(page.words[0] if page.words else "", set()).add("--help")
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_make_target_on_a_page_exists(name: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    text = read(name)
    code = "\n".join([*BLOCK.findall(text), *INLINE.findall(text)])
    named = [
        word
        for line in re.findall(r"^ *make ([^#\n]+)", code, re.MULTILINE)
        for word in shlex.split(line)
        if "=" not in word
    ]
    assert set(named) <= targets


def test_configuration_has_a_row_for_every_setting() -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \| .* \|$", read("docs/configuration.md"), re.MULTILINE)
    assert {name for row in rows for name in INLINE.findall(row)} >= set(KEYS)


def test_troubleshooting_has_a_row_for_every_exit_code() -> None:
    section = read("docs/troubleshooting.md").partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \| \S", section, re.MULTILINE)
    assert rows == [code for code, _ in script("manual").exit_codes()]


def test_code_cites_only_pages_of_this_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "pensieve", "tests", "benchmarks", "packaging", ".github", "Makefile"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    files = [file for file in listed if (ROOT / file).exists()]
    cited = {
        (name, file)
        for file in files
        for name in CITED.findall((ROOT / file).read_text(encoding="utf-8", errors="replace"))
    }
    assert cited
    places = (ROOT, ROOT / "docs")
    missing = {
        (name, file)
        for name, file in cited
        if name not in EXAMPLES and not any((place / name).exists() for place in places)
    }
    assert missing == set()
