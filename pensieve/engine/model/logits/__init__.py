"""What is computed from the model's logits next to the tokens."""
