"""From tool schemas to an llguidance grammar that an answer must match."""
