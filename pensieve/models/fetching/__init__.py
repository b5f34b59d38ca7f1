"""Download from the Hugging Face Hub: resume, verify, publish whole."""
