"""Download the wheels of the formula's lock and check them, for the oldest and newest MLX build.

usage: make formula-check
Checks: libraries that macOS 27 refuses can be aligned (pensieve/engine/grammar/macho.py), brew's
name for a library fits into it, and MLX has the kernels and parameters that the engine needs
(kernels.py). Wheels are downloaded once per lock into build/ (210 MB).
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
# Where brew installs the content of wheels.
SITE_PACKAGES = "/opt/homebrew/opt/pensieve/libexec/lib/python3.14/site-packages"
# By platform: whether the build has the kernels for M5's matrix units.
PLATFORMS = {"macosx_14_0_arm64": False, "macosx_26_0_arm64": True}
METALLIB = "mlx/lib/mlx.metallib"


def fetch(platform: str) -> Path:
    """Return the folder of a platform's wheels.

    Raise CalledProcessError if a wheel is missing or has another hash than the lock.
    """
    version = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = ROOT / "build" / f"wheels-{version}" / platform
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={LOCK}"]
        target = [f"--platform={platform}", "--python-version=3.14", f"--dest={partial}"]
        subprocess.run([*pip, *options, *target], check=True)
        partial.rename(folder)
    return folder


def libraries(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of each library in a folder's wheels."""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).suffix in {".so", ".dylib"}:
                    yield name, archive.read(name)


def faults(name: str, image: bytes) -> Iterator[str]:
    """Yield what prevents the installation of a library."""
    if macho.misalignment(image):
        print(f"  to be aligned for macOS 27: {name}")
        try:
            macho.aligned(image)
        except ValueError as error:
            yield f"macOS 27 refuses {name}: {error}"
    name_and_size = macho.name_and_max_bytes(image)
    if name_and_size and name_and_size[1] <= len(f"{SITE_PACKAGES}/{name}"):
        yield f"brew's name for {name} does not fit into it ({name_and_size[1]} bytes)"


def kernel_faults(folder: Path, *, has_nax: bool) -> Iterator[str]:
    """Yield kernels and parameters that the engine needs and this build lacks."""
    metallib = _read(folder, "mlx_metal-*.whl", METALLIB)
    needed = kernels.needed(has_nax=has_nax)
    missing = needed - kernels.names_in(metallib)
    print(f"  {len(needed) - len(missing)} of {len(needed)} kernels are there")
    yield from (f"{folder.name} has no kernel {name}" for name in sorted(missing))
    paths = {path for path, _ in kernels.PARAMETERS}
    stubs = {path: _read(folder, "mlx-*.whl", path).decode() for path in sorted(paths)}
    yield from kernels.changed_parameters(stubs)


def _read(folder: Path, wheel: str, name: str) -> bytes:
    [path] = folder.glob(wheel)
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def unread_version() -> Iterator[str]:
    """Yield a fault if the kernel tables were read from another MLX than the locked one."""
    [locked] = re.findall(r"^mlx==(\S+)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if locked != kernels.READ_FROM_MLX:
        yield (
            f"packaging/kernels.py was read from MLX {kernels.READ_FROM_MLX}, "
            f"the lock has {locked}: see its first lines"
        )


def main() -> int:
    """Return 0 if every library can be installed and MLX has what the engine needs."""
    all_faults = list(unread_version())
    for platform, has_nax in PLATFORMS.items():
        folder = fetch(platform)
        wheels = list(folder.glob("*.whl"))
        size_mb = sum(wheel.stat().st_size for wheel in wheels) / 1e6
        print(f"{platform}: {len(wheels)} wheels, {size_mb:.1f} MB")
        all_faults += [fault for name, image in libraries(folder) for fault in faults(name, image)]
        all_faults += kernel_faults(folder, has_nax=has_nax)
    print(
        "\n".join(all_faults)
        or "Every library can be installed, and MLX has what the engine needs."
    )
    return 1 if all_faults else 0


if __name__ == "__main__":
    sys.exit(main())
