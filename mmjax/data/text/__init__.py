"""Texts: the tokenizer, and corpora of documents."""
