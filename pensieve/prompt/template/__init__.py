"""Applies a chat template to turns, with earlier answers as they were generated."""
