"""Error of the interop package."""

from mmjax.errors import UserError


class InteropError(UserError):
  """Weights or a configuration that cannot be read or written.

  The message names the file, the tensor or the field, and a remedy if there is one.
  """
