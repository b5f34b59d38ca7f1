"""The field that a message names is the error's `param`, as OpenAI's clients write it."""

import pytest

from pensieve.openai.errors import CHAT_FIELDS, chat_fields, too_long, with_param

# The second of four tools was left out.
FIELDS = chat_fields(["tools.0.function", "tools.2.custom", "tools.3.function"])


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
            "tools.2.custom.input_schema: Too complex.",
            "tools[3].function.parameters: Too complex.",
            "tools[3].function.parameters",
        ),
        ("tools.1.custom.name: Taken.", "tools[2].custom.name: Taken.", "tools[2].custom.name"),
        ("tools: at most: 128", "tools: at most: 128", "tools"),
        ("No field: none", "No field: none", None),
        ("content-type: no", "content-type: no", None),
        ("prompt is too long: 5", "prompt is too long: 5", None),
        ("", "", None),
    ],
)
def test_param_is_the_path_of_the_message(message: str, rewritten: str, param: str | None) -> None:
    assert with_param(message, FIELDS) == (rewritten, param)


def test_fields_of_an_untranslated_request_are_the_clients_own() -> None:
    message = "tools.4.custom.name: Field required"
    assert with_param(message, CHAT_FIELDS)[1] == "tools[4].custom.name"


def test_long_prompt_has_openais_sentence() -> None:
    assert too_long(9, 4) == (
        "This model's maximum context length is 4 tokens. However, your messages resulted in 9"
        " tokens. Please reduce the length of the messages."
    )
