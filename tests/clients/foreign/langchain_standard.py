"""LangChain's standard tests of chat models, for langchain-anthropic and a server at PENSIEVE_TEST_URL.

Run by tests/clients/test_langchain.py in an environment of its own; it knows nothing of pensieve. What LangChain's
tests ask of the words of an answer is little: that there are some.
"""

import os
import uuid

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

USAGE = ["cache_read_input", "cache_creation_input"]


HAS_TOOLS = "PENSIEVE_TEST_TOOLS" in os.environ


class TestText(ChatModelIntegrationTests):
    """What a model carries that reads and writes text, and uses tools where it is said to."""

    chat_model_class = ChatAnthropic
    has_tool_calling = HAS_TOOLS
    has_tool_choice = HAS_TOOLS
    has_structured_output = HAS_TOOLS
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "another-name"
    supported_usage_metadata_details = {"invoke": USAGE, "stream": USAGE}  # noqa: RUF012

    @property
    def chat_model_params(self) -> dict:
        return {
            "model": os.environ["PENSIEVE_TEST_MODEL"],
            "base_url": os.environ["PENSIEVE_TEST_URL"],
            "api_key": os.environ["PENSIEVE_TEST_KEY"],
            "max_tokens": 500 if HAS_TOOLS else 8,
        }

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> AIMessage:
        first, _ = self._asked_twice(stream)
        told = first.usage_metadata["input_token_details"]
        # A whole answer tells for how long, the last event of a stream does not.
        assert told.get("ephemeral_5m_input_tokens", 0) + told["cache_creation"] > 0
        return first

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        _, second = self._asked_twice(stream)
        assert second.usage_metadata["input_token_details"]["cache_read"] > 0
        return second

    def _asked_twice(self, stream: bool) -> list[AIMessage]:
        model = self.chat_model_class(**self.chat_model_params, streaming=stream)
        rules = f"{uuid.uuid4()} " * 3
        marked = {"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}}
        return [model.invoke([SystemMessage([marked]), HumanMessage("Hello")]) for _ in range(2)]
