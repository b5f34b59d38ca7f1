"""Check settings and their origins, the key, files and their readers, disk space and the model."""

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pensieve.atomic_files import set_aside_names
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.errors import ModelError
from pensieve.models.catalog.find import find
from pensieve.models.catalog.sources import LocalModel, ModelSource
from pensieve.models.fetching.download import DISK_MARGIN, free_bytes, purgeable_note
from pensieve.models.fetching.verify import modified_files
from pensieve.models.folder.installed import installed_model
from pensieve.models.folder.integrity import check_model
from pensieve.models.folder.snapshot import (
    MARKER,
    ModelFolder,
    folder_of,
    is_present,
    read_snapshot,
)
from pensieve.paths import Paths
from pensieve.settings.resolve import DEFAULT_API_KEY, Settings, is_loopback, is_strong, listed
from pensieve.settings.spec import KEYS, as_typed

MB = 10**6
GB = 10**9
# Enough for a record, the reserves of the databases and some files of clients.
MIN_STATE_BYTES = 50 * MB
# Space for cached prompts, logs and an update.
LOW_DISK_BYTES = 5 * GB
OTHERS = 0o077
ENTER = 0o011


def check(
    context: DoctorContext,
    *,
    is_thorough: bool = False,
    free: Callable[[Path], int] = free_bytes,
) -> Iterator[Finding]:
    """Check all. `is_thorough`: read every byte of the model and compare hashes."""
    yield from _settings(context)
    yield _key(context.settings)
    yield from _allowed_clients(context.settings)
    yield from _files(context.settings.paths, context.home)
    yield from _set_aside(context.settings.paths, context.home)
    yield from _state_disk(context.settings.paths, free)
    settings = replace(context.settings, model=context.model)
    yield from _model_and_disk(settings, is_thorough=is_thorough)


def _settings(context: DoctorContext) -> Iterator[Finding]:
    if error := context.settings_error:
        yield red("settings", error.message, _commands(error.hint))
        return
    yield ok("settings", "; ".join(_by_origin(context)))


def _by_origin(context: DoctorContext) -> Iterator[str]:
    """List the settings by origin, then the defaults, then those left to the machine or the
    model.
    """
    settings, origins = context.settings, context.settings.origins
    groups: dict[str, list[str]] = {origin: [] for origin in sorted(set(origins.values()))}
    for key in KEYS.values():
        if key.is_secret:
            continue
        name, value = key.name, getattr(settings, key.name)
        if value is None:
            groups.setdefault(f"chosen {key.unset}", []).append(name)
        elif name in origins or value not in (False, ""):
            groups.setdefault(origins.get(name, "by default"), []).append(
                f"{name} {as_typed(value)}"
            )
    for origin, entries in groups.items():
        if entries:
            yield f"{_short(origin, context.home)}: {', '.join(entries)}"


def _key(settings: Settings) -> Finding:
    """Describe the key without showing it."""
    if settings.require_key == "off":
        return _key_not_required(settings)
    new = 'export PENSIEVE_API_KEY="$(openssl rand -hex 32)"'
    if not is_loopback(settings.host) and not is_strong(settings.api_key):
        what = "the default key" if settings.api_key == DEFAULT_API_KEY else "a weak key"
        return red("key", f"{what}, and --host {settings.host} lets other machines in", new)
    if settings.api_key == DEFAULT_API_KEY:
        none = "; they may also send none" if settings.require_key == "auto" else ""
        return ok("key", f"the default one, which only programs on this machine can use{none}")
    origin = settings.origins.get("api_key", "environment")
    if not is_strong(settings.api_key):
        return warning("key", f"your own ({origin}), but short: it could be guessed", new)
    return ok("key", f"your own, strong ({origin})")


def _key_not_required(settings: Settings) -> Finding:
    fix = "pensieve config set require_key auto"
    if not is_loopback(settings.host):
        return red("key", f"not required, and --host {settings.host} lets other machines in", fix)
    text = "not required (require_key = off): every user of this machine is let in"
    is_own = settings.api_key != DEFAULT_API_KEY
    return warning("key", f"{text}, in spite of your own key", fix) if is_own else ok("key", text)


def _allowed_clients(settings: Settings) -> Iterator[Finding]:
    """Report additional hosts and origins, which are off by default."""
    for topic, value, what in (
        ("hosts", settings.allowed_hosts, "clients may also call this server"),
        ("origins", settings.allowed_origins, "web pages may send requests from"),
    ):
        if not value:
            continue
        text = f"{what} {', '.join(listed(value))}"
        if settings.api_key != DEFAULT_API_KEY:
            yield ok(topic, f"{text}; with your own key")
            continue
        risk = "a program that answers for such a name could use the default key, which is public"
        yield warning(topic, f"{text}; {risk}", 'export PENSIEVE_API_KEY="$(openssl rand -hex 32)"')


def _files(paths: Paths, home: Path) -> Iterator[Finding]:
    """Check that files with prompts, keys or answers are private: owner and mode of each."""
    candidates = (paths.state, paths.logs, paths.prefixes, paths.config_file)
    roots = [path for path in candidates if os.path.lexists(path)]
    wrong = {root: problems for root in roots if (problems := list(_not_private(root)))}
    if not wrong:
        yield ok(
            "files", "state, logs and prompts are private" if roots else "nothing is stored yet"
        )
        return
    (path, problem), *others = [each for problems in wrong.values() for each in problems]
    more = f", and {len(others)} more" if others else ""
    fix = "\n".join(f"chmod -R go= {shlex.quote(str(root))}" for root in wrong)
    yield red("files", f"{_short(str(path), home)} {problem}{more}", fix)


def _not_private(root: Path) -> Iterator[tuple[Path, str]]:
    if root.is_symlink():
        yield root, "is a symbolic link, so pensieve refuses to use it"
        return
    yield from _open_to_others(root, is_reachable=True)


def _open_to_others(path: Path, *, is_reachable: bool) -> Iterator[tuple[Path, str]]:
    """is_reachable: others can enter the folder. Agents keep files in folders of ours, with modes
    that mean nothing where they cannot.
    """
    try:
        status = path.lstat()
    except OSError:
        return
    if status.st_uid != os.geteuid():
        yield path, "belongs to another user"
    elif is_reachable and not stat.S_ISLNK(status.st_mode) and status.st_mode & OTHERS:
        yield path, "can be read by other users"
    if stat.S_ISDIR(status.st_mode):
        lets_in = is_reachable and bool(status.st_mode & ENTER)
        with suppress(OSError):
            for inner in sorted(path.iterdir()):
                yield from _open_to_others(inner, is_reachable=lets_in)


def _set_aside(paths: Paths, home: Path) -> Iterator[Finding]:
    """Name what could not be read and was renamed: it may hold what its owner wants back."""
    originals = (paths.batches, paths.files, paths.answers, paths.config_file)
    found = [each for path in originals for each in set_aside_names(path) if os.path.lexists(each)]
    if found:
        names = ", ".join(_short(str(each), home) for each in found)
        text = f"set aside because it was damaged or reset: {names}. Look whether you need it, then"
        fix = "\n".join(f"rm -r {shlex.quote(str(each))}" for each in found)
        yield warning("set aside", f"{text} remove it", fix)


def _state_disk(paths: Paths, free: Callable[[Path], int]) -> Iterator[Finding]:
    """Check the disk of what is small but needed: the server's record, lock, files, batches."""
    folder = _existing(paths.state)
    free_here = free(folder)
    if free_here >= MIN_STATE_BYTES:
        return
    text = (
        f"{free_here / MB:.0f} MB free in {folder}: a server cannot write its record, and refuses"
        " files and message batches"
    )
    is_shared = _existing(paths.prefixes).stat().st_dev == folder.stat().st_dev
    fix = f"df -h {shlex.quote(str(folder))}"
    yield red("state disk", text, f"pensieve cache clear\n{fix}" if is_shared else fix)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _model_and_disk(settings: Settings, *, is_thorough: bool) -> Iterator[Finding]:
    try:
        source = find(settings.model)
    except ModelError as error:
        yield red("model", error.message, "pensieve models")
        return
    is_here = is_present(source, settings.paths.models)
    yield _model(source, settings, is_thorough=is_thorough) if is_here else _missing(source)
    yield _disk(settings, 0 if is_here else _missing_bytes(source, settings))


def _model(source: ModelSource, settings: Settings, *, is_thorough: bool) -> Finding:
    folder = folder_of(source, settings.paths.models)
    try:
        check_model(ModelFolder(source.name, source.name, folder))
    except ModelError as error:
        return red("model", error.message, _commands(error.hint))
    snapshot = read_snapshot(folder / MARKER)
    if snapshot is None:
        return ok("model", f"{source.name}, a folder of yours, complete by its headers")
    if is_thorough:
        names = modified_files(folder, snapshot, lambda _: None)
        if names:
            fix = f"pensieve stop && pensieve pull {shlex.quote(source.name)}"
            return red("model", f"{source.name}: not as published: {', '.join(names)}", fix)
        return ok("model", f"{source.name}: {len(snapshot.files)} files, every byte as published")
    files = f"{len(snapshot.files)} files of the published sizes"
    return ok("model", f"{source.name}: {files} (--verify compares every byte)")


def _missing(source: ModelSource) -> Finding:
    if isinstance(source, LocalModel):
        return red("model", f"there is no model in {source.folder}", "pensieve models")
    fix = f"pensieve pull {shlex.quote(source.name)}"
    return warning("model", f"{source.name} is not here yet: the first start fetches it", fix)


def _missing_bytes(source: ModelSource, settings: Settings) -> int:
    from pensieve.models.catalog.cards import card_of

    if isinstance(source, LocalModel):
        return 0
    card, model = card_of(source), installed_model(source, settings.paths.models)
    return max(0, card.shape.weights_bytes - model.partial_bytes) if card else 0


def _disk(settings: Settings, missing_bytes: int) -> Finding:
    free = free_bytes(_existing(settings.paths.models))
    needed = int(missing_bytes * DISK_MARGIN)
    text = f"{free / GB:.1f} GB free on the models' disk"
    if free < needed:
        return red(
            "disk",
            f"{text}; {settings.model} needs {needed / GB:.1f} GB.{purgeable_note()}",
            "pensieve cache clear",
        )
    if free < LOW_DISK_BYTES:
        return warning(
            "disk", f"{text}: little for cached prompts and logs", "pensieve cache clear"
        )
    return ok("disk", text)


def _commands(hint: str | None) -> str:
    """Return the commands of a hint: its indented lines."""
    lines = (hint or "").splitlines()
    return "\n".join(line.strip() for line in lines if line.startswith("  "))


def _short(path: str, home: Path) -> str:
    return path.replace(str(home), "~", 1) if path.startswith(str(home)) else path
