"""Fetch models from the Hugging Face Hub: resume, verify, publish complete folders."""
