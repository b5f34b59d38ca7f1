"""All that touches MLX: loading, KV caches, batched decoding, sampling."""
