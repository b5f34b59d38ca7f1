"""Write the archive for a bug report: findings, versions, the server's last log lines.

It contains no key, name of a key, prompt, user name or home path: secrets are replaced wherever
they occur. The log's own lines hold no prompts (logs.py); lines of debugging servers and other
libraries are left out, because they could.
"""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pensieve import __version__
from pensieve.atomic_files import write_atomically
from pensieve.doctor.checks.serving import log_tail
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from pensieve.errors import NotWritableError
from pensieve.logs import OWN_LINE
from pensieve.settings.spec import shortened

FOLDER = "pensieve-report/"
LOG_LINES = 400
DISTRIBUTIONS = (
    *("mlx", "mlx-metal", "mlx-cpu", "mlx-cuda-13", "mlx-lm", "llguidance", "tokenizers"),
    *("transformers", "huggingface-hub", "starlette", "uvicorn", "h11", "pydantic", "anyio"),
    "jinja2",
)
HIDDEN = "[hidden]"
SECRET_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
SECRETS = re.compile(
    r"sk-[\w-]{8,}|hf_\w{8,}|gh[pousr]_\w{8,}"
    r"|(?<=Bearer )\S+|(?<=x-api-key: )\S+|(?<=://)[^/\s@]+@",
    re.IGNORECASE,
)
# What the log's lines of requests have of people's and clients' own text.
NAMED = re.compile(
    r'(?<=, key )\S+|(?<=, x-request-id )\S+|(?<="key": ")[^"]+|(?<="client_request_id": ")[^"]+'
)
DEATHS = re.compile(r"libc\+\+abi|\[malloc\]|metallib|\[METAL\]|\[metal::|kIOGPU|terminat|panic\(")


def write(file: Path, context: DoctorContext, findings: Iterable[Finding]) -> None:
    """Write the archive, readable by its owner alone. Raises `NotWritableError`."""
    report = {
        "pensieve": __version__,
        "versions": _versions(),
        "findings": [finding.as_json() for finding in findings],
    }
    hide = Redaction(context)
    parts = {
        "doctor.json": hide(json.dumps(report, indent=2)),
        "server.log": hide(_shareable_lines(log_tail(context.logs))),
        "settings.json": hide(json.dumps(_settings(context), indent=2)),
    }
    try:
        if file.is_file() and not _is_report(file):
            raise _not_written(file, "it exists and is not a report")
        write_atomically(file, _archive(parts))
    except OSError as error:
        raise _not_written(file, str(error.strerror)) from error
    except ValueError as error:
        raise _not_written(file, "it is not a file name") from error


def _is_report(file: Path) -> bool:
    """Whether `file` is an earlier report, which may be replaced; other files are not
    overwritten.
    """
    try:
        with tarfile.open(file) as archive:
            first = archive.next()
    except tarfile.TarError:
        return False
    return first is not None and first.name.startswith(FOLDER)


def _not_written(file: Path, reason: str) -> NotWritableError:
    return NotWritableError(f"{shortened(str(file))} cannot be written: {reason}.")


class Redaction:
    """Replaces this user's secrets, home and name: known values, and text in the form of
    secrets.
    """

    def __init__(self, context: DoctorContext) -> None:
        environ = context.environ
        secrets = {context.settings.api_key, *_secret_values(environ)}
        user = environ.get("USER") or environ.get("LOGNAME") or context.home.name
        names = {user, environ.get("HOSTNAME", "")}
        self._values = sorted((value for value in secrets if value), key=len, reverse=True)
        self._homes = sorted(
            {str(context.home), str(context.home.resolve())}, key=len, reverse=True
        )
        # Whole words only: a user called "a" would otherwise redact most of the text.
        self._names = [
            re.compile(rf"\b{re.escape(name)}\b")
            for name in names
            if len(name) > 2 and name != "root"
        ]

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN).replace(json.dumps(value)[1:-1], HIDDEN)
        text = SECRETS.sub(HIDDEN, text)
        for home in self._homes:
            if home != "/":
                text = text.replace(home, "~")
        for name in self._names:
            text = name.sub("[user]", text)
        return text


def _secret_values(environ: Mapping[str, str]) -> set[str]:
    """Skip short values, which also occur as ordinary text."""
    return {
        value for name, value in environ.items() if SECRET_NAMES.search(name) and len(value) > 5
    }


def _shareable_lines(log: str) -> str:
    """Return our own lines above DEBUG, and lines about crashes."""
    lines = [line for line in log.splitlines() if OWN_LINE.match(line) or DEATHS.search(line)]
    return NAMED.sub(HIDDEN, "\n".join(lines[-LOG_LINES:]) + "\n")


def _settings(context: DoctorContext) -> dict[str, Any]:
    settings = context.settings
    names = (
        "model",
        "device",
        "host",
        "port",
        "memory_gb",
        "kv_bits",
        "cache_gb",
        "daily_write_gb",
        "wired",
        "speculation",
        "idle_unload",
        "keep_awake",
    )
    values = {name: getattr(settings, name) for name in names}
    return {"values": values, "origins": dict(settings.origins)}


def _versions() -> dict[str, str]:
    installed = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
    return {name: installed[name] for name in DISTRIBUTIONS if name in installed}


def _archive(parts: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    # No file name and no time of this machine go into the archive.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name, text in parts.items():
            content = text.encode()
            entry = tarfile.TarInfo(FOLDER + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
