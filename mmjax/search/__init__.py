"""Searches of settings: trials with values from ranges, of which those that do well early get more steps."""

from mmjax.search.command import Search, SearchOptions, main
from mmjax.search.space import Choice, Integers, LogUniform, Uniform

__all__ = ["Choice", "Integers", "LogUniform", "Search", "SearchOptions", "Uniform", "main"]
