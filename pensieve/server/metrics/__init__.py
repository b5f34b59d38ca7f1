"""`GET /metrics`: counts and times of requests and the engine, in Prometheus' text format."""
