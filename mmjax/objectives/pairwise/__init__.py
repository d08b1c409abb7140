"""Pairwise engine: exact losses over all pairs of a batch that many devices hold."""
