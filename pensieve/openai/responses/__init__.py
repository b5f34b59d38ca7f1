"""OpenAI's Responses API as values, and their translation from and to Anthropic's."""
