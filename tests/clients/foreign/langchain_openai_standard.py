"""LangChain's standard tests of chat models, with langchain-openai and PENSIEVE_TEST_URL.

tests/clients/openai/test_langchain.py runs it in a separate environment without pensieve.
"""

import os

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

USAGE = ["cache_read_input", "reasoning_output"]


class TestChat(ChatModelIntegrationTests):
    """The features of a text model with tools."""

    chat_model_class = ChatOpenAI
    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_json_mode = True
    supports_model_override = True
    model_override_value = "another-name"
    supported_usage_metadata_details = {"invoke": USAGE, "stream": USAGE}  # noqa: RUF012

    @property
    def chat_model_params(self) -> dict:
        return {
            "model": os.environ["PENSIEVE_TEST_MODEL"],
            "base_url": f"{os.environ['PENSIEVE_TEST_URL']}/v1",
            "api_key": os.environ["PENSIEVE_TEST_KEY"],
            "stream_usage": True,
        }

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params, streaming=stream)
        messages = [SystemMessage("Be brief. " * 9), HumanMessage("Hello")]
        model.invoke(messages)
        second = model.invoke(messages)
        assert second.usage_metadata["input_token_details"]["cache_read"] > 0
        return second

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params, streaming=stream)
        return model.invoke("Hello")


class TestResponses(TestChat):
    """The same features by the Responses API."""

    @property
    def chat_model_params(self) -> dict:
        return super().chat_model_params | {"use_responses_api": True}
