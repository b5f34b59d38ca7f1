"""Small PDFs, written by hand."""

import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence


def pdf_of(*pages: str, is_compressed: bool = False, trailer: bytes = b"") -> bytes:
    """Return a PDF with these texts; an empty one makes a page without text. trailer: entries."""
    count = len(pages)
    kids = b" ".join(b"%d 0 R" % (4 + 2 * at) for at in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, count),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for at, text in enumerate(pages):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F 3 0 R >> >> >>" % (5 + 2 * at)
        )
        objects.append(stream(_drawn(text), is_compressed=is_compressed))
    return file_of(objects, trailer)


def stream(
    content: bytes, entries: Mapping[str, bytes] | None = None, *, is_compressed: bool = False
) -> bytes:
    fields = dict(entries or {})
    if is_compressed:
        content, fields["Filter"] = zlib.compress(content), b"/FlateDecode"
    written = b"".join(b" /%b %b" % (name.encode(), value) for name, value in fields.items())
    head = b"<< /Length %d%b >>" % (len(content), written)
    return head + b"\nstream\n" + content + b"\nendstream"


def file_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """Return a file of these objects; the first is the catalog."""
    content, offsets = b"%PDF-1.4\n", []
    for number, written in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, written)
    start = len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    content += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    entries = b"/Size %d /Root 1 0 R %b" % (len(objects) + 1, trailer)
    return content + b"trailer << %b >>\nstartxref\n%d\n%%%%EOF\n" % (entries, start)


def locked_pdf() -> bytes:
    """Return a PDF that asks for a password: no key fits its made-up hashes."""
    locks = b"/Filter /Standard /V 1 /R 2 /P -4 /O (%b) /U (%b)" % (b"o" * 32, b"u" * 32)
    return pdf_of("secret", trailer=b"/Encrypt << %b >> /ID [(a) (a)]" % locks)


def forms_in_forms(depth: int = 8) -> bytes:
    """Return a PDF with 10 to the power of `depth` texts."""
    forms = [_form(b"/X Do " * 10, b"/XObject << /X %d 0 R >>" % (7 + at)) for at in range(depth)]
    last = _form(b"BT /F 9 Tf (" + b"ha" * 500 + b") Tj ET", b"/Font << /F 4 0 R >>")
    return _one_page(stream(b"/X Do"), b"/XObject << /X 6 0 R >>", *forms, last)


def long_page() -> bytes:
    """Return a PDF of 100 kB with a content of 70 MB."""
    shown = b"BT /F 9 Tf " + b"(x) Tj " * 10_000_000 + b"ET"
    return _one_page(stream(shown, is_compressed=True), b"/Font << /F 4 0 R >>")


def base64_of(content: bytes) -> str:
    return b64encode(content).decode()


def document_of(content: bytes, **fields: object) -> dict[str, object]:
    """Return a document block."""
    source = {"type": "base64", "media_type": "application/pdf", "data": base64_of(content)}
    return {"type": "document", "source": source, **fields}


def _form(content: bytes, resources: bytes) -> bytes:
    entries = {"Type": b"/XObject", "Subtype": b"/Form", "BBox": b"[0 0 612 792]"}
    return stream(content, entries | {"Resources": b"<< %b >>" % resources})


def _one_page(content: bytes, resources: bytes, *more: bytes) -> bytes:
    """Return a PDF whose objects 4, 5 and 6 are a font, the page's content, and the next one."""
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R"
    return file_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"%b /Resources << %b >> >>" % (page, resources),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            content,
            *more,
        ]
    )


def _drawn(text: str) -> bytes:
    shown = [b"<%b> Tj T*" % line.encode("cp1252").hex().encode() for line in text.splitlines()]
    return b"BT /F 12 Tf 14 TL 72 720 Td %b ET" % b" ".join(shown)
