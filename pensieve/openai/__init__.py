"""OpenAI's API as values, and their translation from and to those of the Messages API."""
