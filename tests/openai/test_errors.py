"""The field that a message names is the error's `param`, as OpenAI's clients write it."""

import pytest

from pensieve.openai.errors import too_long, with_param


@pytest.mark.parametrize(
    ("message", "rewritten", "param"),
    [
        ("max_tokens: Too small", "max_tokens: Too small", "max_tokens"),
        (
            "messages.2.content.0.type: No",
            "messages[2].content[0].type: No",
            "messages[2].content[0].type",
        ),
        (
            "output_config.format.schema: Too complex.",
            "response_format.json_schema.schema: Too complex.",
            "response_format.json_schema.schema",
        ),
        (
            "tools.10.custom.input_schema: Too complex.",
            "tools[10].function.parameters: Too complex.",
            "tools[10].function.parameters",
        ),
        ("tools: at most: 128", "tools: at most: 128", "tools"),
        ("No field: none", "No field: none", None),
        ("content-type: no", "content-type: no", None),
        ("prompt is too long: 5", "prompt is too long: 5", None),
        ("", "", None),
    ],
)
def test_param_is_the_path_of_the_message(message: str, rewritten: str, param: str | None) -> None:
    assert with_param(message) == (rewritten, param)


def test_long_prompt_has_openais_sentence() -> None:
    assert too_long(9, 4) == (
        "This model's maximum context length is 4 tokens. However, your messages resulted in 9"
        " tokens. Please reduce the length of the messages."
    )
