"""Mach-O libraries with a misaligned string table are aligned; other files stay unchanged."""

import struct
import subprocess
from pathlib import Path

import pytest

from pensieve.engine.grammar import llguidance_import, macho

STRINGS = b"\0_PyInit_lib\0_malloc\0\0"
SIGNATURE = b"\xfa\xde\x0c\xc0 signature"
LINKEDIT_START = 4096


def library(strings_at: int, *, is_signed: bool = True, after: bytes = b"") -> bytes:
    """Return an arm64 Mach-O file with nothing but a last segment."""
    end = strings_at + len(STRINGS)
    signature_at = end + -end % 16
    segment = struct.pack(
        "<II16sQQQQIIII", 0x19, 72, b"__LINKEDIT", 0, 16384, LINKEDIT_START, 0, 1, 1, 0, 0
    )
    symtab = struct.pack("<6I", 0x2, 24, LINKEDIT_START, 0, strings_at, len(STRINGS))
    signature = struct.pack("<4I", 0x1D, 16, signature_at, len(SIGNATURE)) if is_signed else b""
    commands = segment + symtab + signature
    count = 3 if is_signed else 2
    header = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 6, count, len(commands), 0, 0)
    image = (header + commands).ljust(strings_at, b"\0") + STRINGS + after
    return image.ljust(signature_at, b"\0") + SIGNATURE if is_signed else image


def strings_of(image: bytes) -> tuple[int, bytes]:
    offset, size = struct.unpack_from("<II", image, 32 + 72 + 16)
    return offset, image[offset : offset + size]


@pytest.mark.parametrize("past", [0, 1, 4, 7])
@pytest.mark.parametrize("is_signed", [True, False])
def test_strings_move_to_a_multiple_of_eight_unchanged(past: int, *, is_signed: bool) -> None:
    image = library(LINKEDIT_START + past, is_signed=is_signed)
    assert macho.misalignment(image) == past
    aligned = macho.aligned(image)
    assert macho.misalignment(aligned) == 0
    assert strings_of(aligned) == (LINKEDIT_START + (8 if past else 0), STRINGS)


def test_the_signature_is_removed_and_the_last_segment_ends_with_the_file() -> None:
    aligned = macho.aligned(library(LINKEDIT_START + 4))
    count, size = struct.unpack_from("<II", aligned, 16)
    assert (count, size) == (2, 72 + 24)
    assert SIGNATURE not in aligned
    [file_bytes] = struct.unpack_from("<Q", aligned, 32 + 48)
    assert LINKEDIT_START + file_bytes == len(aligned)


def test_data_after_the_strings_is_refused() -> None:
    image = library(LINKEDIT_START + 4, is_signed=False, after=b"more")
    with pytest.raises(ValueError, match="not the last thing"):
        macho.aligned(image)


def test_a_universal_file_is_read_at_its_arm64_part() -> None:
    start = 128
    fat = struct.pack(">II", 0xCAFEBABE, 2)
    fat += struct.pack(">5I", 0x01000007, 3, 64, 32, 0)
    fat += struct.pack(">5I", 0x0100000C, 0, start, 8192, 0)
    image = fat.ljust(start, b"\0") + library(LINKEDIT_START + 4)
    assert macho.misalignment(image) == 4
    with pytest.raises(ValueError, match="thin arm64"):
        macho.aligned(image)


def test_space_for_a_library_name_ends_at_the_first_section() -> None:
    name = b"@rpath/lib.so\0\0\0"
    section = struct.pack("<16s16sQQ8I", b"__text", b"__TEXT", 0, 0, 400, 0, 0, 0, 0, 0, 0, 0)
    zeros = struct.pack("<16s16sQQ8I", b"__bss", b"__DATA", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    segment = struct.pack("<II16sQQQQIIII", 0x19, 232, b"__TEXT", 0, 0, 0, 0, 1, 1, 2, 0)
    commands = segment + section + zeros + struct.pack("<6I", 0xD, 40, 24, 0, 0, 0) + name
    header = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 6, 2, len(commands), 0, 0)
    image = (header + commands).ljust(500, b"\0")
    assert macho.name_and_max_bytes(image) == ("@rpath/lib.so", 400 - 32 - 232 - 24)
    assert macho.name_and_max_bytes(library(LINKEDIT_START)) is None


def sign_nothing(_: Path) -> None:
    """Replace codesign: hand-made libraries need no signature."""


def fail_to_sign(file: Path) -> None:
    raise subprocess.CalledProcessError(1, ["codesign", str(file)])


def package(folder: Path) -> Path:
    """Make a package folder with one library that macOS 27 refuses."""
    folder.mkdir()
    (folder / "_lib.abi3.so").write_bytes(library(LINKEDIT_START + 4))
    return folder


def test_only_misaligned_libraries_are_written(tmp_path: Path) -> None:
    aligned, misaligned = library(LINKEDIT_START), library(LINKEDIT_START + 4)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "wrong.so").write_bytes(misaligned)
    (tmp_path / "package" / "fine.dylib").write_bytes(aligned)
    (tmp_path / "script.so").write_text("no library")
    (tmp_path / "wrong.bin").write_bytes(misaligned)
    assert macho.align(tmp_path, sign_nothing) == [tmp_path / "package" / "wrong.so"]
    assert (tmp_path / "package" / "fine.dylib").read_bytes() == aligned
    assert (tmp_path / "script.so").read_text() == "no library"
    assert (tmp_path / "wrong.bin").read_bytes() == misaligned
    assert macho.align(tmp_path, sign_nothing) == []


def test_an_aligned_library_is_a_new_file_signed_before_the_replacement(
    tmp_path: Path,
) -> None:
    """macOS ends a process that maps a file whose signature changed since its first mapping."""
    file = package(tmp_path / "package") / "_lib.abi3.so"
    file.chmod(0o755)
    before = file.stat()
    signed: list[int] = []

    def sign(new: Path) -> None:
        assert macho.misalignment(file.read_bytes()) == 4
        signed.append(new.stat().st_ino)

    macho.align(tmp_path, sign)
    after = file.stat()
    assert signed == [after.st_ino]
    assert (after.st_ino != before.st_ino, after.st_mode) == (True, before.st_mode)
    assert list(file.parent.iterdir()) == [file]


def test_a_pip_package_is_aligned_if_it_then_loads(tmp_path: Path) -> None:
    folder = package(tmp_path / "package")
    assert llguidance_import.align_package(folder, sign_nothing, loads=lambda: True)
    assert macho.misaligned(folder) == []


@pytest.mark.parametrize(
    ("sign", "loads"),
    [
        pytest.param(sign_nothing, False, id="it does not load either"),
        pytest.param(fail_to_sign, True, id="codesign fails"),
    ],
)
def test_a_package_that_still_does_not_load_stays_unchanged(
    tmp_path: Path, sign: macho.Sign, *, loads: bool
) -> None:
    folder = package(tmp_path / "package")
    assert not llguidance_import.align_package(folder, sign, loads=lambda: loads)
    assert (folder / "_lib.abi3.so").read_bytes() == library(LINKEDIT_START + 4)
    assert list(folder.iterdir()) == [folder / "_lib.abi3.so"]


def test_a_package_without_misaligned_libraries_is_not_loaded(tmp_path: Path) -> None:
    def never() -> bool:
        raise AssertionError("tried")

    assert not llguidance_import.align_package(tmp_path, sign_nothing, loads=never)
    assert not llguidance_import.align_package(tmp_path / "missing", sign_nothing, loads=never)


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/opt/homebrew/Cellar/pensieve/0.1.0/libexec", "brew reinstall pensieve"),
        (
            "/Users/me/pensieve/.venv",
            "/Users/me/pensieve/.venv/bin/python -m pip install --force-reinstall --no-deps "
            "llguidance==",
        ),
    ],
)
def test_the_reinstall_command_fits_the_kind_of_installation(prefix: str, command: str) -> None:
    assert llguidance_import.reinstall_command(Path(prefix)).startswith(command)
