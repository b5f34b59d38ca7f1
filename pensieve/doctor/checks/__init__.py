"""The checks of `pensieve doctor`, one module per subject."""
