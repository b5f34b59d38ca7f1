"""The small endpoints: models, health, OpenAPI document."""
