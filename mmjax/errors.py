"""Errors that the person at the command line can mend; the command line prints their message without a traceback."""


class UserError(ValueError):
  """Something given from outside is wrong. The message says what, where, and what would be right."""


class ConfigError(UserError):
  """A configuration that cannot be run; the message names the field and the remedy."""


class CheckpointError(UserError):
  """A checkpoint that cannot serve this run; the message names it and the remedy."""
