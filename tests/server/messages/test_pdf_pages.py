"""Pages of PDFs as text and pictures, for a model that sees."""

from pensieve.engine.generation import Generation
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says
from tests.support.pdfs import document_of, locked_pdf, pdf_of
from tests.support.pictures import SIGHT, shown

LONG = "\n".join(["words words words words"] * 6)


async def generation(content: bytes) -> Generation:
    engine = ScriptedEngine([says("ok")])
    body = CALL | {"messages": [{"role": "user", "content": [document_of(content)]}]}
    counting = {name: body[name] for name in ("model", "messages")}
    model = {"sight": SIGHT, "context_tokens": 100_000}
    async with in_memory(app_of(engine, **model)) as client:
        answer = await client.post("/v1/messages", json=body)
        assert answer.status_code == 200, answer.text
        counted = await client.post("/v1/messages/count_tokens", json=counting)
    assert counted.json()["input_tokens"] == answer.json()["usage"]["input_tokens"]
    (one,) = engine.generations
    return one


async def test_each_page_of_a_short_pdf_is_its_text_and_its_picture() -> None:
    one = await generation(pdf_of("first", "", LONG))
    assert (
        '<document>\n<page number="1">\nfirst\n{0}\n</page>\n<page number="2">\n{1}\n</page>\n'
        f'<page number="3">\n{LONG}\n{{2}}\n</page>\n</document>'
    ) in shown(one)
    first, empty, _ = one.pictures
    # A page in US letter at 100 dots per inch.
    assert (first.rows, first.columns) == (34, 27)
    pixels = await first.pixels()
    assert len(pixels) == 34 * 27 * 32 * 32 * 3
    assert min(pixels) < 100
    assert set(await empty.pixels()) == {255}
    assert first.id != empty.id


async def test_of_a_long_pdf_pages_with_little_text_are_pictures() -> None:
    one = await generation(pdf_of(*[LONG] * 10, "short"))
    assert len(one.pictures) == 1
    assert f'<page number="9">\n{LONG}\n</page>\n<page number="10">' in shown(one)
    assert '<page number="11">\nshort\n{0}\n</page>' in shown(one)


async def test_a_scan_is_read_and_a_damaged_page_is_named() -> None:
    content = pdf_of("", "two", "").replace(b"[4 0 R 6 0 R 8 0 R]", b"[4 0 R 1 0 R 8 0 R]")
    one = await generation(content)
    assert len(one.pictures) == 2
    assert '<page number="2">\n[This page is damaged.]\n</page>' in shown(one)


async def test_a_pdf_that_is_not_read_is_refused_as_by_other_models() -> None:
    body = CALL | {"messages": [{"role": "user", "content": [document_of(locked_pdf())]}]}
    async with in_memory(app_of(ScriptedEngine([says("no")]), sight=SIGHT)) as client:
        answer = await client.post("/v1/messages", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith("The PDF specified is password protected.")
