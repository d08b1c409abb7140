"""Groups of devices in a collective, from the notations that XLA uses."""

import re

import numpy as np

Groups = tuple[tuple[int, ...], ...]


def replica_groups(attributes: str, devices: int) -> Groups:
  """Read the groups of a collective instruction.

  These notations are known:

  * {{0,1},{2,3}}
  * [2,4]<=[8] and [4,2]<=[2,4]T(1,0)
  * mesh['a'=2,'b'=4] {'a'}, also with device_ids=([4,2]T(1,0)) before the braces
  * source_target_pairs of a permute; the groups are its chains
  * nothing, or {}: one group of all devices

  Args:
    attributes: attributes of the instruction.
    devices: number of devices of the program.
  Returns: the device numbers of each group.
  """
  if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
    return _chains([(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs.group(1))])
  if listed := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)+)\}", attributes):
    return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", listed.group(1)))
  if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
    return _rows(_grid(iota.group(2), iota.group(3)).reshape(_integers(iota.group(1))))
  if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, *device_ids=\S+)? *\{([^}]*)\}", attributes):
    return _mesh_groups(mesh.group(1), mesh.group(2), attributes)
  return (tuple(range(devices)),)


def _mesh_groups(axes: str, names: str, attributes: str) -> Groups:
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
  order = re.search(r"\bdevice_ids=\(?\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?", attributes)
  everything = np.arange(int(np.prod(list(sizes.values()))))
  grid = _grid(order.group(2) or order.group(1), order.group(3)) if order else everything
  chosen = re.findall(r"'([^']+)'", names)
  grid = grid.reshape(list(sizes.values()))
  inside = [list(sizes).index(name) for name in chosen]
  outside = [i for i in range(grid.ndim) if i not in inside]
  width = int(np.prod([grid.shape[i] for i in inside]))
  return _rows(grid.transpose(outside + inside).reshape(-1, width))


def _grid(dimensions: str, permutation: str | None) -> np.ndarray:
  shape = _integers(dimensions)
  grid = np.arange(int(np.prod(shape))).reshape(shape)
  return grid.transpose(_integers(permutation)) if permutation else grid


def _integers(text: str) -> list[int]:
  return [int(n) for n in text.split(",")]


def _rows(grid: np.ndarray) -> Groups:
  return tuple(tuple(int(n) for n in row) for row in grid)


def _chains(pairs: list[tuple[int, int]]) -> Groups:
  """Chains of devices that pass data to each other. A chain is a ring or a line."""
  follows = dict(pairs)
  starts = [a for a, _ in pairs if a not in follows.values()] + [a for a, _ in pairs]
  chains: list[tuple[int, ...]] = []
  seen: set[int] = set()
  for start in starts:
    chain: list[int] = []
    place: int | None = start
    while place is not None and place not in seen:
      seen.add(place)
      chain.append(place)
      place = follows.get(place)
    if chain:
      chains.append(tuple(chain))
  return tuple(chains)
