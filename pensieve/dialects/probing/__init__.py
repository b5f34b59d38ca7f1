"""Analyzes a chat template by trial renderings: thinking marks, switches, ends of turn."""
