"""Fetches the wheels that the formula's lock names, for the oldest and the newest MLX build, and looks into their libraries.

What macOS 27 would refuse must be what linkedit.py can put right, and the name that brew may write into a library must fit there.
Fetched once for each lock, into build/ (210 MB).
usage: make formula-check
"""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pensieve.engine import linkedit

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "packaging" / "requirements-macos.lock"
# Where brew puts what is in a wheel.
SITE_PACKAGES = "/opt/homebrew/opt/pensieve/libexec/lib/python3.14/site-packages"
PLATFORMS = ("macosx_14_0_arm64", "macosx_26_0_arm64")


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
    if linkedit.misalignment(image):
        print(f"  mended for macOS 27: {name}")
        try:
            linkedit.aligned(image)
        except ValueError as error:
            yield f"macOS 27 refuses {name}: {error}"
    named = linkedit.name_and_room(image)
    if named and named[1] <= len(f"{SITE_PACKAGES}/{name}"):
        yield f"brew's name for {name} does not fit into it ({named[1]} bytes)"


def main() -> int:
    """0 where the formula can install every library so that it loads."""
    found: list[str] = []
    for platform in PLATFORMS:
        folder = fetched(platform)
        wheels = list(folder.glob("*.whl"))
        print(
            f"{platform}: {len(wheels)} wheels, {sum(w.stat().st_size for w in wheels) / 1e6:.1f} MB"
        )
        found += [fault for name, image in libraries(folder) for fault in faults(name, image)]
    print("\n".join(found) or "Every library can be installed.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
