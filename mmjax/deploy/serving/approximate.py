"""Approximate search in many images: a graph of neighbours (HNSW, Malkov and Yashunin 2016) by faiss."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.deploy.serving.index import Index
from mmjax.errors import UserError
from mmjax.files import write_atomically

LINKS, BUILD_EFFORT, SEARCH_EFFORT = 32, 200, 256
"""M, efConstruction and efSearch of HNSW: neighbours of a node, and candidates while it is built and searched."""
CHECKED, FOUND = 200, 10
"""Images that the graph is compared with exact search by, and the number of neighbours of each."""
_FIELDS = ("digest", "graph")
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Approximate(Index):
  """An index that is searched by a graph. A search may miss some of the nearest images.

  Attributes:
    graph: the graph of faiss, with the embeddings.
  """

  graph: Any = None

  def nearest(self, query: Float[np.ndarray, " dim"], count: int) -> list[tuple[int, float]]:
    """(number of the image, cosine) of images that are near, the nearest first. Cosines are exact."""
    cosines, places = self.graph.search(query[None], min(count, len(self.names)))
    pairs = [(int(place), float(cosine)) for place, cosine in zip(places[0], cosines[0], strict=True) if place >= 0]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


@dataclasses.dataclass(frozen=True)
class Quality:
  """Comparison of approximate with exact search.

  Attributes:
    recall: share of the FOUND nearest images that are found.
    exact_seconds, seconds: mean time of a search.
  """

  recall: float
  exact_seconds: float
  seconds: float


def approximate(index: Index, file: Path) -> Approximate:
  """Make the graph of an index, or read it from its file, if the embeddings are the same.

  Args:
    index: the exact index.
    file: file of the graph.
  Raises: UserError: faiss is not installed, or the file cannot be used.
  """
  try:
    import faiss
  except ImportError:
    raise UserError("--approximate needs faiss: pip install 'mmjax[nearest]'") from None
  rows = np.ascontiguousarray(index.rows, np.float32)
  digest = hashlib.sha256(repr(rows.shape).encode() + rows.tobytes()).hexdigest()
  graph = _known(file, digest)
  if graph is None:
    graph = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_EFFORT
    graph.add(rows)
    _save(file, digest, faiss.serialize_index(graph))
  graph.hnsw.efSearch = SEARCH_EFFORT
  return Approximate(index.folder, index.names, rows, graph)


def quality(index: Approximate, queries: Float[np.ndarray, "n dim"]) -> Quality:
  """Compare the graph with exact search.

  Args:
    index: the index.
    queries: embeddings to search for.
  """
  exact, times = super(Approximate, index).nearest, [0.0, 0.0]
  shared = 0
  for query in queries:
    began = time.perf_counter()
    wanted = exact(query, FOUND)
    between = time.perf_counter()
    found = index.nearest(query, FOUND)
    times[0] += between - began
    times[1] += time.perf_counter() - between
    shared += len({place for place, _ in wanted} & {place for place, _ in found})
  most = min(FOUND, len(index.names)) * len(queries)
  return Quality(shared / most, times[0] / len(queries), times[1] / len(queries))


def sampled(index: Index) -> Float[np.ndarray, "n dim"]:
  """Embeddings of CHECKED images of an index, evenly spread."""
  return index.rows[np.unique(np.linspace(0, len(index.rows) - 1, CHECKED).astype(int))]


def _known(file: Path, digest: str) -> Any:
  """The graph in a file. None if there is none, or it is of other embeddings."""
  import faiss

  if not file.exists():
    return None
  try:
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
      made_of, graph = (arrays[field] for field in _FIELDS)
      if str(made_of) != digest:
        log.warning("%s is of other embeddings: the graph is made anew", file)
        return None
      return faiss.deserialize_index(graph)
  except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
    raise UserError(f"{file} is no graph of images ({error}): delete it, or name another --index") from error


def _save(file: Path, digest: str, graph: np.ndarray) -> None:
  buffer = io.BytesIO()
  fields: dict[str, Any] = dict(zip(_FIELDS, (np.array(digest), graph), strict=True))
  np.savez(buffer, **fields)
  try:
    write_atomically(file, buffer.getvalue())
  except OSError as error:
    raise UserError(f"the graph {file} cannot be written ({error.strerror}): name another --index") from error
