"""What can be wrong with other people's weights."""

from mmjax.errors import UserError


class InteropError(UserError):
  """Weights or a configuration that cannot be read or written; file, tensor or field are named, with a remedy."""
