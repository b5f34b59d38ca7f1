"""Named keys at work: whose request it is, and what its key still may."""
