"""Coding agents on the local model: their configuration, and `pensieve launch`."""
