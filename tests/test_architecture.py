"""Architecture rules (dependency direction, wrappers of foreign libraries, size limits), by
imports.
"""

import ast
import statistics
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "pensieve"
FILES = sorted(ROOT.rglob("*.py"))
BASE = {
    *("errors", "paths", "atomic_files", "private_files", "untrusted_json", "untrusted_text"),
    *("settings", "logs", "installation", "sleep_blocker", "isolation", "peer_proof"),
    *("worker_threads", "credentials"),
}
FILES_ON_DISK = {"atomic_files", "private_files", "untrusted_json"}

# The other parts of pensieve that a part may import. A part is a package with its own row or a
# top-level module; a name covers the package and everything below it.
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli", "isolation"},
    **{name: set() for name in ("errors", "paths", "isolation", "atomic_files")},
    **{name: set() for name in ("peer_proof", "private_files", "sleep_blocker")},
    **{name: set() for name in ("untrusted_json", "untrusted_text")},
    "installation": {"untrusted_json"},
    "credentials": {"atomic_files", "errors", "private_files", "untrusted_json"},
    "worker_threads": {"errors"},
    "settings": {"atomic_files", "errors", "paths", "private_files"},
    "logs": {"atomic_files", "errors", "untrusted_text"},
    "machine": {"errors", "installation", "paths", "settings"},
    "daemon": {
        *("credentials", "engine.generation", "errors", "installation", "isolation", "paths"),
        "settings",
    }
    | FILES_ON_DISK,
    "api": {"errors"},
    "dialects": {"errors"},
    "dialects.grammar": {
        *("dialects.dialect", "dialects.format_calls", "dialects.parameter_names", "errors"),
    },
    "dialects.probing": {"dialects.dialect", "dialects.format_calls", "errors"},
    "engine": {"errors"},
    "engine.planning": {"errors", "machine", "settings", "untrusted_json"},
    "engine.scheduling": {
        *("engine.generation", "engine.protocol", "engine.long_operations", "engine.planning"),
        "engine.pictures",
    },
    "engine.speculation": {"engine.generation", "engine.pictures"},
    "engine.disk": {"engine.generation"} | FILES_ON_DISK,
    "engine.grammar": {"engine.generation", "engine.protocol", "errors", "isolation"},
    "engine.client": {
        *("engine.generation", "engine.protocol", "engine.long_operations"),
        *("errors", "isolation", "settings", "atomic_files", "private_files"),
    },
    "engine.model": {
        *("engine.generation", "engine.protocol", "engine.long_operations", "engine.disk"),
        *("engine.grammar", "engine.planning", "engine.scheduling", "engine.speculation"),
        "engine.pictures",
        *("errors", "machine", "settings"),
    },
    "engine.ranks": {"engine", "errors", "settings"},
    "engine.worker": {"daemon.libproc", "engine", "errors", "machine", "settings"} | FILES_ON_DISK,
    "prompt": {"api", "dialects", "engine.pictures", "errors"},
    "prompt.conversation": {"api", "dialects", "errors"},
    "openai": {"api", "errors"},
    "media": {"errors", "isolation", "settings", "untrusted_json", "worker_threads"},
    "reply": {"api", "dialects", "engine.generation", "prompt.chat_tokenizer", "errors"},
    "models": {"machine", "dialects", "engine.planning"} | BASE,
    "models.tokenizer": {"worker_threads", "errors"},
    "server": {
        *("api", "openai", "prompt", "reply", "engine.client", "engine.generation"),
        *("engine.pictures", "media"),
        *("models", "hosts", "engine.disk.shares"),
    }
    | BASE,
    "server.http": {"api", "server.errors", "server.wire", "installation", "logs", "errors"},
    "server.middleware": {
        *("api", "server.activity", "server.errors", "server.http", "server.wire"),
        *("credentials", "server.keys", "logs", "settings", "errors"),
    },
    "server.activity": {"api", "engine.generation", "worker_threads"},
    "hosts": {"engine.client", "engine.planning", "engine.ranks.place", "models", "machine"} | BASE,
    "hosts.worker_process": {
        *("engine.generation", "engine.protocol", "engine.ranks", "engine.worker", "logs"),
        *("settings", "sleep_blocker"),
    },
    "server.keys": {"credentials", "server.activity", "worker_threads", "errors"},
    "doctor": {"models", "machine", "daemon", "hosts"} | BASE,
    "bench": {"daemon", "engine.generation", "machine"} | BASE,
    "cli": {
        *("api", "server", "models", "machine", "daemon", "doctor", "bench", "hosts"),
        *("engine.generation", "engine.planning", "engine.disk.speculation_record"),
    }
    | BASE,
    "cli.ui": {"errors", "settings", "untrusted_text"},
}

# Foreign libraries (and SQLite) and the parts that alone may import them.
WRAPPERS = {
    "mlx": {
        "engine.model",
        "engine.worker",
        "engine.ranks",
        "engine.grammar.mask",
        "machine",
        "models.demo.gguf",
    },
    "mlx_lm": {"engine.model", "engine.ranks", "engine.worker"},
    "llguidance": {"engine.grammar"},
    "numpy": {"engine"},
    "pydantic": {"api", "openai", "hosts.greeting"},
    "pydantic_core": {"api", "openai"},
    "huggingface_hub": {"models.fetching"},
    "transformers": {"models"},
    "tokenizers": {"models"},
    "jinja2": {"models"},
    "prometheus_client": {"server.metrics"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "h11": {"server"},
    "cyclopts": {"cli"},
    "httpx": {"cli"},
    "httpx2": {"models.fetching"},
    "rich": {"cli"},
    "markdown_it": {"cli"},
    "pygments": {"cli"},
    "prompt_toolkit": {"cli"},
    "tomlkit": {"settings.config_file"},
    "anyio": {"engine", "server", "hosts", "media", "worker_threads"},
    "pypdfium2": {"media.pdf"},
    "PIL": {"media.pictures"},
    "sqlite3": {"server.database"},
}
STDLIB_DOORS = {"print": {"cli.ui.output"}}
MAX_LINES = 400
MAX_FILES = 15


def part_of(module: str) -> str:
    """Return the innermost row of the table that covers a module."""
    return next((name for name in parents_of(module) if name in MAY_IMPORT), module)


def parents_of(module: str) -> list[str]:
    """Return a module's name and those of its packages, the longest first."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    imports = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            imports.add(node.module)
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
    return imports


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in allowed)


MODULES = {module_of(path): path for path in FILES}


def inner_imports_of(path: Path) -> set[str]:
    """Return the pensieve modules that a file imports; packages count unless a part covers them."""
    modules = {name.removeprefix("pensieve.") for name in imports_of(path)} & MODULES.keys()
    return {name for name in modules if not any(other.startswith(name + ".") for other in modules)}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_what_its_part_allows(path: Path) -> None:
    part = part_of(module_of(path))
    assert part in MAY_IMPORT, f"{part} has no row in the table"
    allowed = MAY_IMPORT[part] | {part}
    assert {name for name in inner_imports_of(path) if not is_within(name, allowed)} == set()


def test_modules_have_no_import_cycles() -> None:
    graph = {module: inner_imports_of(path) for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_command_imports_another() -> None:
    commands = {name for name in MODULES if name.startswith("cli.commands.")}
    assert {
        (name, other) for name in commands for other in inner_imports_of(MODULES[name]) & commands
    } == set()


@pytest.mark.parametrize("root", [ROOT, TESTS], ids=lambda root: root.name)
def test_folders_stay_within_the_file_limit(root: Path) -> None:
    counts = Counter(path.parent.relative_to(root).as_posix() for path in root.rglob("*.py"))
    assert {folder: count for folder, count in counts.items() if count > MAX_FILES} == {}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_foreign_library_is_imported_only_by_its_wrapper(path: Path) -> None:
    top_levels = {name.split(".")[0] for name in imports_of(path)}
    wrong = {
        lib for lib in top_levels & WRAPPERS.keys() if not is_within(module_of(path), WRAPPERS[lib])
    }
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_stay_within_their_line_limit_and_have_a_docstring(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


def function_lengths() -> dict[str, int]:
    lengths = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 1
                lengths[f"{module_of(path)}:{node.lineno}:{node.name}"] = length
    return lengths


def test_functions_are_short() -> None:
    lengths = function_lengths()
    assert {name: n for name, n in lengths.items() if n > 50} == {}
    ordered = sorted(lengths.values())
    assert statistics.median(ordered) <= 8
    assert ordered[int(0.95 * len(ordered))] <= 30


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_the_output_module_prints(path: Path) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not calls or is_within(module_of(path), STDLIB_DOORS["print"])


def test_no_module_is_named_utils_or_the_like() -> None:
    vague = {"core", "utils", "common", "helpers", "types", "misc"}
    assert not {
        module_of(path)
        for path in FILES
        if vague & set(path.relative_to(ROOT).with_suffix("").parts)
    }


def test_every_row_of_the_tables_names_an_existing_module() -> None:
    modules = MAY_IMPORT.keys() | set().union(*MAY_IMPORT.values(), *WRAPPERS.values())
    assert {name for name in modules if name not in MODULES} == set()
