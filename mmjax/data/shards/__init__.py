"""Shards: tar and ArrayRecord files of records, read at random and written."""
