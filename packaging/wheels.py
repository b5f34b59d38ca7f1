"""Fetches the wheels that the formula's lock names, for the oldest and the newest MLX build, and looks into their libraries.

What macOS 27 would refuse must be what linkedit.py can put right. Fetched once for each lock, into build/ (170 MB).
usage: make formula-check
"""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import linkedit

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "packaging" / "requirements-macos.lock"
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


def misaligned(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Libraries that macOS 27 would refuse: wheel and path, and the file."""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).suffix in {".so", ".dylib"}:
                    image = archive.read(name)
                    if linkedit.misalignment(image):
                        yield f"{wheel.name}: {name}", image


def main() -> int:
    """0 where the formula can install every library so that it loads."""
    worst = 0
    for platform in PLATFORMS:
        folder = fetched(platform)
        count = len(list(folder.glob("*.whl")))
        size_mb = sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 1e6
        print(f"{platform}: {count} wheels, {size_mb:.1f} MB")
        for name, image in misaligned(folder):
            is_mended = linkedit.misalignment(linkedit.aligned(image)) == 0
            worst = max(worst, not is_mended)
            print(f"  {'mended for' if is_mended else 'refused by'} macOS 27: {name}")
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
