"""Batches of several sources: each has rows of every stream, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data.errors import DataError
from mmjax.data.loader import Loader


class Streams:
  """Endless iterator over {stream: batch}, in step. Like a Loader, it has a state, and resumes exactly.

  Args:
    loaders: the loaders, by the names of their streams.
  """

  def __init__(self, loaders: Mapping[str, Loader]):
    self._loaders = dict(loaders)

  def __iter__(self) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    return self

  def __next__(self) -> dict[str, dict[str, np.ndarray]]:
    return {name: next(loader) for name, loader in self._loaders.items()}

  def get_state(self) -> dict[str, dict[str, Any]]:
    """Return the position in every stream, from which `set_state` continues exactly."""
    return {name: loader.get_state() for name, loader in self._loaders.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Continue after the batch that was the last one when `get_state` was called.

    Raises: DataError: the state is of other streams, other data, another seed or batch size, or it is damaged.
    """
    if set(state) != set(self._loaders):
      raise DataError(
        f"The saved data position has the streams {sorted(state)}, this run has {sorted(self._loaders)}. "
        "Resume with the same data.streams, or start in a new --run.workdir."
      )
    for name, loader in self._loaders.items():
      loader.set_state(state[name])

  def close(self) -> None:
    """End threads and worker processes. The next batch starts them again."""
    for loader in self._loaders.values():
      loader.close()


def stream_seed(seed: int, name: str) -> int:
  """Seed of the order and the randomness of a stream. That of data.source, which has the name "", is the run's."""
  if not name:
    return seed
  return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0]) % 2**31
