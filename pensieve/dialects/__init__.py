"""Describes how a model family writes turns, thinking and tool calls."""
