"""Losses: pure functions of what models give, and what their targets are made with."""
