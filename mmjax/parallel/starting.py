"""Set-up of a process that computes."""

import contextlib
import logging
from collections.abc import Iterator

from mmjax.parallel.distributed import process_group
from mmjax.parallel.host import tune_allocator, tune_compiler


@contextlib.contextmanager
def set_up() -> Iterator[None]:
  """Context that sets up logging, the memory allocator, the compiler and, for several processes, their group."""
  logging.basicConfig(format="%(message)s", level=logging.WARNING)
  logging.getLogger("absl").setLevel(logging.ERROR)  # messages of TFDS and Orbax need no action of the user
  tune_allocator()
  tune_compiler()
  with process_group():
    yield
