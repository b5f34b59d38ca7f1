"""Finds Mach-O libraries whose string table macOS 27 refuses, and aligns them.

Used by llguidance_import.py, packaging and the formula. macOS 27's dyld loads no image whose string
table (`LC_SYMTAB.stroff`) does not begin at a multiple of eight: "mis-aligned LINKEDIT string pool"
(rust-lang/rust#157750, llvm/llvm-project#203678). Libraries stripped by an older Rust may be
affected. The fix is the one reported to load in MapleTechLabs/maple#932: remove the signature, pad
before the strings, sign again. Written from the file format's documentation; LLVM's tools read the
result, and no Mac has loaded it so far.

usage: python -m pensieve.engine.grammar.macho FOLDER
    aligns the libraries under a folder (the formula, make)
"""

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ALIGNMENT = 8

_THIN_64 = 0xFEEDFACF
_FAT = 0xCAFEBABE
_CPU_ARM64 = 0x0100000C
_HEADER_BYTES = 32
_LC_SYMTAB = 0x2
_LC_ID_DYLIB = 0xD
_LC_SEGMENT_64 = 0x19
_LC_CODE_SIGNATURE = 0x1D


Sign = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Command:
    """One load command and its position in the file."""

    kind: int
    start: int
    size: int


def misalignment(image: bytes) -> int:
    """Return the string table offset of the arm64 image modulo eight; 0 if not a Mach-O file."""
    start = _arm64_start(image)
    if start is None:
        return 0
    symtab = next((c for c in _commands(image, start) if c.kind == _LC_SYMTAB), None)
    return _u32(image, symtab.start + 16) % ALIGNMENT if symtab else 0


def aligned(image: bytes) -> bytes:
    """Return a thin image with its string table aligned and its signature removed.

    Raises ValueError for an image of several architectures, or if anything but a signature follows
    the strings.
    """
    if _arm64_start(image) != 0:
        raise ValueError("not a thin arm64 image")
    unsigned = _unsigned(image)
    commands = list(_commands(unsigned, 0))
    symtab = next(c for c in commands if c.kind == _LC_SYMTAB)
    strings, size = _u32(unsigned, symtab.start + 16), _u32(unsigned, symtab.start + 20)
    if any(unsigned[strings + size :]):
        raise ValueError("the string table is not the last thing in the file")
    padding = -strings % ALIGNMENT
    padded = unsigned[:strings] + bytes(padding) + unsigned[strings : strings + size]
    result = bytearray(padded)
    struct.pack_into("<I", result, symtab.start + 16, strings + padding)
    _fit_linkedit(result, commands)
    return bytes(result)


def name_and_max_bytes(image: bytes) -> tuple[str, int] | None:
    """Return a dynamic library's install name and its maximum length in bytes; None without one."""
    start = _arm64_start(image)
    if start is None:
        return None
    commands = list(_commands(image, start))
    id_command = next((c for c in commands if c.kind == _LC_ID_DYLIB), None)
    if id_command is None:
        return None
    name_start = id_command.start + _u32(image, id_command.start + 8)
    name = image[name_start : id_command.start + id_command.size].rstrip(b"\0").decode()
    commands_end = start + _HEADER_BYTES + _u32(image, start + 20)
    free = min(_section_offsets(image, commands)) + start - commands_end
    return name, id_command.start + id_command.size - name_start + free


def _section_offsets(image: bytes, commands: list[Command]) -> Iterator[int]:
    """Yield the file offsets of sections; sections of zeros have none."""
    for command in commands:
        if command.kind == _LC_SEGMENT_64:
            for index in range(_u32(image, command.start + 64)):
                offset = _u32(image, command.start + 72 + 80 * index + 48)
                if offset:
                    yield offset


def misaligned(folder: Path) -> list[Path]:
    """Return the libraries under `folder` that macOS 27 refuses."""
    files = (file for file in sorted(folder.rglob("*")) if file.suffix in {".so", ".dylib"})
    return [file for file in files if not file.is_symlink() and misalignment(file.read_bytes())]


def align(folder: Path, sign: Sign) -> list[Path]:
    """Align every library under `folder` that needs it; return the changed ones.

    Libraries that cannot be aligned are left unchanged: what needs them fails, the rest works.
    """
    changed: list[Path] = []
    for file in misaligned(folder):
        with suppress(ValueError):
            replace(file, aligned(file.read_bytes()), sign)
            changed.append(file)
    return changed


def replace(file: Path, image: bytes, sign: Sign) -> None:
    """Replace a library by a signed image, as a new file: macOS caches the old one's signature."""
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_bytes(image)
        new.chmod(file.stat().st_mode)
        sign(new)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def sign(file: Path) -> None:
    """Sign ad hoc. Raises CalledProcessError or OSError."""
    command = ["/usr/bin/codesign", "--force", "--sign", "-", str(file)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 -- a fixed program


def _unsigned(image: bytes) -> bytes:
    commands = list(_commands(image, 0))
    if commands[-1].kind != _LC_CODE_SIGNATURE:
        return image
    last = commands[-1]
    result = bytearray(image[: _u32(image, last.start + 8)])
    result[last.start : last.start + last.size] = bytes(last.size)
    struct.pack_into("<II", result, 16, len(commands) - 1, _u32(image, 20) - last.size)
    return bytes(result)


def _fit_linkedit(image: bytearray, commands: list[Command]) -> None:
    """Extend the last segment to the end of the file."""
    for command in commands:
        name = bytes(image[command.start + 8 : command.start + 24]).rstrip(b"\0")
        if command.kind == _LC_SEGMENT_64 and name == b"__LINKEDIT":
            vm_bytes, file_offset = struct.unpack_from("<QQ", image, command.start + 32)
            file_bytes = len(image) - file_offset
            if file_bytes > vm_bytes:
                raise ValueError("the segment __LINKEDIT has no room for the padding")
            struct.pack_into("<Q", image, command.start + 48, file_bytes)


def _commands(image: bytes, start: int) -> Iterator[Command]:
    position = start + _HEADER_BYTES
    for _ in range(_u32(image, start + 16)):
        kind, size = struct.unpack_from("<II", image, position)
        yield Command(kind, position, size)
        position += size


def _arm64_start(image: bytes) -> int | None:
    """Return where the arm64 image begins, in a thin or fat file."""
    if len(image) < _HEADER_BYTES:
        return None
    if struct.unpack_from(">I", image)[0] == _FAT:
        slices = struct.unpack_from(">I", image, 4)[0]
        for index in range(min(slices, 16)):
            cpu, _, offset = struct.unpack_from(">III", image, 8 + 20 * index)
            if cpu == _CPU_ARM64:
                return offset
    return 0 if _u32(image, 0) == _THIN_64 else None


def _u32(image: bytes, offset: int) -> int:
    return struct.unpack_from("<I", image, offset)[0]


def main() -> int:
    """Align the libraries under the folder given as the first argument."""
    for file in align(Path(sys.argv[1]), sign):
        sys.stdout.write(f"aligned {file.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
