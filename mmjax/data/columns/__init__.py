"""Columns: what is made of one field of a record."""
