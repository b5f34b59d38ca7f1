"""What every request passes: context and logging, access checks, base URLs."""
