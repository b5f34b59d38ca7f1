"""The house's rules (one direction, one door per foreign library, budgets), held by reading every file's imports."""

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pensieve"
FILES = sorted(ROOT.rglob("*.py"))
# What the front end plans memory with: the engine's own arithmetic, without MLX.
PLANNING = {"engine.budget", "engine.place", "engine.precision", "engine.shape"}
BASE = {
    *("errors", "paths", "files", "private_files", "foreign_json", "visible", "peer_proof"),
    *("keys", "config", "settings", "logs", "homebrew", "power", "isolation"),
}

# What a part may import inside pensieve. A name with a dot is that one module.
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli", "isolation"},
    "isolation": set(),
    "errors": set(),
    "paths": set(),
    "files": set(),
    "homebrew": set(),
    "log_damping": set(),
    "peer_proof": set(),
    "foreign_json": set(),
    "visible": set(),
    "private_files": set(),
    "keys": {"errors"},
    "config": {"keys", "files", "private_files", "errors"},
    "settings": {"keys", "config", "paths", "errors"},
    "logs": {"files", "visible", "log_damping", "errors"},
    "power": set(),
    "machine": {"settings", "paths", "errors"},
    "daemon": {
        "settings",
        "paths",
        "files",
        "private_files",
        "foreign_json",
        "homebrew",
        "errors",
        "isolation",
    },
    "api": {"errors"},
    "dialects": {"errors"},
    "engine": {
        "errors",
        "files",
        "foreign_json",
        "isolation",
        "machine",
        "private_files",
        "settings",
    },
    "prompt": {"api", "dialects", "engine.generation", "errors"},
    "reply": {"api", "dialects", "engine.generation", "prompt.template", "errors"},
    "models": {"machine", "dialects", *PLANNING} | BASE,
    "server": {"api", "prompt", "reply", "engine.client", "engine.generation", "models"} | BASE,
    "doctor": {"models", "machine", "daemon"} | BASE,
    "cli": {"server", "models", "machine", "daemon", "doctor", "engine.budget", "engine.precision"}
    | BASE,
}

# Foreign libraries and the parts that alone may import them.
DOORS = {
    "mlx": {"engine", "machine", "models.embedded"},
    "mlx_lm": {"engine"},
    "llguidance": {"engine"},
    "numpy": {"engine"},
    "pydantic": {"api"},
    "pydantic_core": {"api"},
    "huggingface_hub": {"models"},
    "transformers": {"models"},
    "tokenizers": {"models"},
    "jinja2": {"models"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "h11": {"server"},
    "cyclopts": {"cli"},
    "httpx": {"cli"},
    "httpx2": {"models"},
    "rich": {"cli"},
    "markdown_it": {"cli"},
    "pygments": {"cli"},
    "prompt_toolkit": {"cli"},
    "anyio": {"engine", "server"},
}
STDLIB_DOORS = {"print": {"cli.output"}}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in allowed)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} has no row in the table"
    inside = {
        name.removeprefix("pensieve.") for name in imports_of(path) if name.startswith("pensieve.")
    }
    modules = {
        name for name in inside if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    }
    packages = {
        name for name in inside if (ROOT / name.replace(".", "/")).is_dir() and "." not in name
    }
    named = {
        name for name in packages if not any(module.startswith(name + ".") for module in modules)
    }
    wrong = {name for name in modules | named if not is_within(name, MAY_IMPORT[part] | {part})}
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_foreign_library_enters_through_its_door(path: Path) -> None:
    top_levels = {name.split(".")[0] for name in imports_of(path)}
    wrong = {lib for lib in top_levels & DOORS.keys() if not is_within(module_of(path), DOORS[lib])}
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_stays_within_its_budget_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
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


def test_no_drawer_for_everything() -> None:
    vague = {"core", "utils", "common", "helpers", "types", "misc"}
    assert not {
        module_of(path)
        for path in FILES
        if vague & set(path.relative_to(ROOT).with_suffix("").parts)
    }


def test_every_row_of_the_table_is_about_something_that_exists() -> None:
    assert MAY_IMPORT.keys() <= {part_of(path) for path in FILES} | {
        "logs",
        "machine",
        "daemon",
        "dialects",
    }
