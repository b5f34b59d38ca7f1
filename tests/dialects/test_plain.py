from pensieve.dialects import plain
from pensieve.models.chat_template import ChatTemplate


def test_a_conversation_is_a_transcript_that_the_assistant_goes_on_with() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye\n"},
    ]
    template = ChatTemplate(plain.TEMPLATE, {"bos_token": "<s>"})
    assert template.render(messages) == (
        "<s>Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Bye\n\n\nAssistant:"
    )


def test_a_model_without_a_first_token_gets_none() -> None:
    template = ChatTemplate(plain.TEMPLATE, {})
    assert template.render([{"role": "user", "content": "Hi"}]) == "User: Hi\n\nAssistant:"
