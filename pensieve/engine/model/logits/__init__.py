"""What is computed from the model's logits besides the next tokens."""
