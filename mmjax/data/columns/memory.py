"""Cache of a worker. It affects only the speed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

MOST_TEXTS = 100_000


class Memory:
  """Cache of decoded images and of the token ids of texts.

  Args:
    size: bytes for images. The number of texts is limited to MOST_TEXTS.
  """

  def __init__(self, size: int):
    self._size = self._left = size
    self._images: dict[Any, Any] = {}
    self._texts: dict[str, np.ndarray] = {}

  def image(self, place: Any, make: Callable[[], tuple[Any, int]]) -> Any:
    """Return the image of a key. If it is not cached, `make` returns it and its size in bytes."""
    found = self._images.get(place)
    if found is None:
      found, size = make()
      if size <= self._left:
        self._left -= size
        self._images[place] = found
    return found

  def ids(self, texts: Sequence[str], tokenizer: Any) -> Int32[np.ndarray, "n t"]:
    """Return the token ids of texts."""
    known = self._texts
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    if len(known) + len(missing) > MOST_TEXTS:
      return tokenizer(texts)
    known.update(zip(missing, tokenizer(missing)))
    return np.stack([known[text] for text in texts])

  def __getstate__(self) -> dict[str, Any]:
    """Leave out the contents. Worker processes start with an empty cache."""
    return {"_size": self._size, "_left": self._size, "_images": {}, "_texts": {}}
