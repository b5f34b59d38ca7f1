"""Model folders on this machine: their files, and whether they can be served."""
