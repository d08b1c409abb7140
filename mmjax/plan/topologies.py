"""Machines by name, such as v5e:16x16, h100x64 and cpu:8."""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterator

from mmjax.errors import UserError
from mmjax.plan.hardware import CHIPS, Hardware, virtual_cpu

# The slices that can be rented (docs.cloud.google.com/tpu/docs/{v5e,v6e,v4,v5p,tpu7x}).
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
SLICES = {"v4": _CUBES, "v5e": _FLAT, "v5p": (*_CUBES, "16x16x24"), "v6e": _FLAT, "tpu7x": (*_CUBES, "16x16x32")}
_GPU_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class TopologyError(UserError):
  """The machine is unknown. The message lists the known ones and suggests the most similar name."""


@dataclasses.dataclass(frozen=True)
class Topology:
  """A number of devices of one type.

  Attributes:
    name: name of the machine, such as "v5e:16x16".
    hardware: hardware of one device.
    grid: TPU: chips along each dimension of the torus. GPU: (nodes, devices per node). CPU: (devices,).
  """

  name: str
  hardware: Hardware
  grid: tuple[int, ...]

  @property
  def devices(self) -> int:
    """Number of JAX devices."""
    return math.prod(self.grid) * self.hardware.devices_per_chip

  @property
  def chips(self) -> int:
    """Number of chips, the unit of prices."""
    return math.prod(self.grid)


def known_topologies() -> Iterator[str]:
  """Iterate over the names of machines. GPUs are listed in powers of two, and `cpu:N` only for N = 1, 2, 4 and 8."""
  for chip, slices in SLICES.items():
    yield from (f"{chip}:{grid}" for grid in slices)
  for chip in ("a100", "h100", "h200"):
    yield from (f"{chip}x{count}" for count in _GPU_COUNTS)
  yield from (f"cpu:{count}" for count in (1, 2, 4, 8))


def parse_topology(name: str) -> Topology:
  """Make the machine of a name. Raises TopologyError, which suggests a similar name, if there is none."""
  name = name.strip().lower()
  if (match := re.fullmatch(r"cpu:([1-9]\d{0,3})", name)) is not None:
    count = int(match[1])
    return Topology(name, virtual_cpu(count, _physical_memory()), (count,))
  if (match := re.fullmatch(r"([ah]\d00)x([1-9]\d{0,4})", name)) is not None and match[1] in CHIPS:
    chip, count = CHIPS[match[1]], int(match[2])
    node = min(count, chip.node or count)
    if count % node == 0:
      return Topology(name, chip, (count // node, node))
    raise TopologyError(f"{name}: more than {node} GPUs come in whole nodes of {node}, such as {chip.name}x{2 * node}")
  chip_name, _, grid = name.partition(":")
  if grid in SLICES.get(chip_name, ()):
    return Topology(name, CHIPS[chip_name], tuple(int(side) for side in grid.split("x")))
  raise TopologyError(_unknown(name))


def _unknown(name: str) -> str:
  names = list(known_topologies())
  nearest = _same_count(name, names) or difflib.get_close_matches(name, names, 1, 0.0)
  lines = [f"  {chip}: {', '.join(f'{chip}:{grid}' for grid in slices)}" for chip, slices in SLICES.items()]
  lines += ["  GPU: a100xN, h100xN, h200xN with N up to 8, or a multiple of 8", "  CPU: cpu:N, N virtual devices"]
  meant = f" Did you mean {nearest[0]!r}?" if nearest else ""
  return f"unknown topology {name!r}.{meant} Known are:\n" + "\n".join(lines)


def _same_count(name: str, names: list[str]) -> list[str]:
  """Names of machines with the same chip and number of chips, for names such as `v5e-256` or `v5e:256`."""
  match = re.fullmatch(r"(v4|v5e|v5p|v6e|tpu7x|[ah]\d00)[^0-9]*(\d+)", name.replace("v5litepod", "v5e"))
  if match is None:
    return []
  chip, count = match[1], int(match[2])
  mine = [other for other in names if re.match(rf"{chip}[:x]", other)]
  return [other for other in mine if math.prod(map(int, re.findall(r"\d+", other[len(chip) :]))) == count]


def _physical_memory() -> int:
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
