"""Pictures in prompts: their marks, and prompts that lack one."""

import pytest

from pensieve.api.messages.content_blocks import Base64Image, ReadImage, TextBlock
from pensieve.api.messages.request import Conversation, Turn
from pensieve.engine.pictures import picture_token
from pensieve.errors import InvalidRequestError
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from pensieve.prompt.conversation.pictures import joined, mark_of
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.template.pictures import PictureMarks
from tests.support.fakes import ByteTokenizer
from tests.support.tiny_models import byte_level_tokenizer

MARKS = PictureMarks(300, 301, 302)
TEXT = {"type": "text", "text": "look"}


async def no_pixels() -> bytes:
    return b""


def read(picture_id: str, rows: int = 2, columns: int = 3) -> ReadImage:
    return ReadImage(
        type="image",
        source=Base64Image(type="base64", media_type="image/png", data=""),
        picture_id=picture_id,
        rows=rows,
        columns=columns,
        pixels=no_pixels,
    )


def conversation(*blocks: object) -> Conversation:
    turn = Turn.model_validate({"role": "user", "content": [TEXT]})
    return Conversation(model="m", messages=(turn.model_copy(update={"content": tuple(blocks)}),))


def test_parts_are_joined_by_line_breaks_but_for_pictures() -> None:
    one, two = mark_of("1"), mark_of("2")
    assert joined(["a", "b", one, two, "c\n", "", one]) == f"a\nb{one}{two}c\n\n{one}"
    assert joined([]) == ""
    assert one != two
    assert one == mark_of("1")


def test_a_picture_has_its_own_tokens_between_the_marks() -> None:
    prompt = PromptRenderer(ByteTokenizer(), picture_marks=MARKS).render(
        conversation(read("a"), read("b", 1, 1))
    )
    first, second = prompt.rendered.pictures
    assert prompt.tokens[first.start - 1 : second.tokens.stop + 1] == (
        300,
        *(picture_token("a", place) for place in range(6)),
        302,
        300,
        picture_token("b", 0),
        302,
    )
    assert prompt.original_tokens == len(prompt.tokens)


class ForgetfulTokenizer(ByteTokenizer):
    """Its template writes the first characters of a turn alone."""

    def _turn(self, index: int, turn) -> str:
        return super()._turn(index, {**turn, "content": turn["content"][:20]})


class RepeatingTokenizer(ByteTokenizer):
    def _turn(self, index: int, turn) -> str:
        return super()._turn(index, turn) * 2


class PaddingTokenizer(ByteTokenizer):
    """Its template writes pads of its own."""

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens, edges = super().encode_with_edges(rendered)
        return [*tokens, MARKS.pad], edges


@pytest.mark.parametrize("kind", [ForgetfulTokenizer, RepeatingTokenizer, PaddingTokenizer])
def test_a_prompt_with_other_pictures_than_the_request_is_refused(kind: type) -> None:
    renderer = PromptRenderer(kind(), picture_marks=MARKS)
    with pytest.raises(InvalidRequestError, match="picture"):
        renderer.render(conversation(read("a")))
    renderer.render(conversation(TextBlock(type="text", text="look")))


# Like Qwen3.5's: a part that is a picture is three control tokens, without line breaks.
SEEING_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}
{%- endfor %}{% endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def test_the_prompt_is_the_templates_own_with_the_pads_replaced() -> None:
    tokenizer = byte_level_tokenizer(is_qwen=True)
    marks = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
    tokenizer.add_special_tokens(marks)
    model = ModelTokenizer(tokenizer, ChatTemplate(SEEING_TEMPLATE, {}), ())
    start, pad, end = (model.controls[mark] for mark in marks)
    parts = [{"type": "image"}, {"type": "text", "text": " a \n"}, {"type": "image"}]
    own = model.encode(model.render([{"role": "user", "content": parts}]))
    assert own.count(pad) == 2
    text = TextBlock(type="text", text=" a \n")
    renderer = PromptRenderer(model, picture_marks=PictureMarks(start, pad, end))
    prompt = renderer.render(conversation(read("a", 1, 1), text, read("b", 1, 1)))
    assert [pad if token < 0 else token for token in prompt.tokens] == own
    forged = TextBlock(type="text", text="<|image_pad|>")
    assert pad not in renderer.render(conversation(forged, read("a", 1, 1))).tokens
