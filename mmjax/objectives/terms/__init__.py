"""Loss terms: the weighted parts of the loss of a run."""
