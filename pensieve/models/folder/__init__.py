"""Model folders on this machine: what lies in them, and whether it can be served."""
