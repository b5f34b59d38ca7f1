"""Fetches the wheels that the formula's lock names, for the oldest and the newest MLX build, and looks into them.

What macOS 27 would refuse must be what linkedit.py can align, the name that brew may write into a library must fit there, and
MLX must have the kernels and the parameters that the engine needs (kernels.py). Fetched once for each lock, into build/ (210 MB).
usage: make formula-check
"""

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import kernels

from pensieve.engine.grammar import macho

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "packaging" / "requirements-macos.lock"
# Where brew puts what is in a wheel.
SITE_PACKAGES = "/opt/homebrew/opt/pensieve/libexec/lib/python3.14/site-packages"
# The newest build alone has the kernels for M5's matrix units.
PLATFORMS = {"macosx_14_0_arm64": False, "macosx_26_0_arm64": True}
METALLIB = "mlx/lib/mlx.metallib"


def fetched(platform: str) -> Path:
    """The folder with a platform's wheels. Raises CalledProcessError where one is missing or another than locked."""
    version = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = ROOT / "build" / f"wheels-{version}" / platform
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        locked = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={LOCK}"]
        target = [f"--platform={platform}", "--python-version=3.14", f"--dest={partial}"]
        subprocess.run([*pip, *locked, *target], check=True)
        partial.rename(folder)
    return folder


def libraries(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each library in a folder's wheels: its path, and the file."""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).suffix in {".so", ".dylib"}:
                    yield name, archive.read(name)


def faults(name: str, image: bytes) -> Iterator[str]:
    """What a library could not be installed for."""
    if macho.misalignment(image):
        print(f"  to be aligned for macOS 27: {name}")
        try:
            macho.aligned(image)
        except ValueError as error:
            yield f"macOS 27 refuses {name}: {error}"
    named = macho.name_and_max_bytes(image)
    if named and named[1] <= len(f"{SITE_PACKAGES}/{name}"):
        yield f"brew's name for {name} does not fit into it ({named[1]} bytes)"


def kernel_faults(folder: Path, *, has_nax: bool) -> Iterator[str]:
    """Yield what the engine needs of MLX and this build has not."""
    metallib = _read(folder, "mlx_metal-*.whl", METALLIB)
    needed = kernels.needed(has_nax=has_nax)
    missing = needed - kernels.names_in(metallib)
    print(f"  {len(needed) - len(missing)} of {len(needed)} kernels are there")
    yield from (f"{folder.name} has no kernel {name}" for name in sorted(missing))
    paths = {path for path, _ in kernels.PARAMETERS}
    stubs = {path: _read(folder, "mlx-*.whl", path).decode() for path in sorted(paths)}
    yield from kernels.changed_parameters(stubs)


def _read(folder: Path, wheel: str, name: str) -> bytes:
    [found] = folder.glob(wheel)
    with zipfile.ZipFile(found) as archive:
        return archive.read(name)


def unread_version() -> Iterator[str]:
    """Yield a fault where the lock has another MLX than the tables of kernels were read from."""
    [locked] = re.findall(r"^mlx==(\S+)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if locked != kernels.READ_FROM_MLX:
        yield f"packaging/kernels.py was read from MLX {kernels.READ_FROM_MLX}, the lock has {locked}: see its first lines"


def main() -> int:
    """0 where the formula can install every library so that it loads, and MLX has what the engine needs."""
    found = list(unread_version())
    for platform, has_nax in PLATFORMS.items():
        folder = fetched(platform)
        wheels = list(folder.glob("*.whl"))
        print(
            f"{platform}: {len(wheels)} wheels, {sum(w.stat().st_size for w in wheels) / 1e6:.1f} MB"
        )
        found += [fault for name, image in libraries(folder) for fault in faults(name, image)]
        found += kernel_faults(folder, has_nax=has_nax)
    print("\n".join(found) or "Every library can be installed, and MLX has what the engine needs.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
