"""LangChain's standard tests of chat models, with langchain-anthropic and PENSIEVE_TEST_URL.

tests/clients/test_langchain.py runs it in a separate environment without pensieve. The tests
require of an answer's text only that it is not empty.
"""

import os
import uuid

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

USAGE = ["cache_read_input", "cache_creation_input"]
HAS_TOOLS = "PENSIEVE_TEST_TOOLS" in os.environ


class TestText(ChatModelIntegrationTests):
    """The features of a text model, with tools if PENSIEVE_TEST_TOOLS is set."""

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
        first, _ = self._invoke_twice(stream)
        details = first.usage_metadata["input_token_details"]
        # A whole answer has the time to live, the last event of a stream does not.
        assert details.get("ephemeral_5m_input_tokens", 0) + details["cache_creation"] > 0
        return first

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        _, second = self._invoke_twice(stream)
        assert second.usage_metadata["input_token_details"]["cache_read"] > 0
        return second

    def _invoke_twice(self, stream: bool) -> list[AIMessage]:
        model = self.chat_model_class(**self.chat_model_params, streaming=stream)
        rules = f"{uuid.uuid4()} " * 3
        marked = {"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}}
        return [model.invoke([SystemMessage([marked]), HumanMessage("Hello")]) for _ in range(2)]
