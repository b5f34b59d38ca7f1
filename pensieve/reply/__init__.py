"""Engine events in, message events out."""
