"""Specifications of chips, as their makers publish them, and prices per hour.

TPUs: memory, peak and bandwidths are from docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. `hbm_bytes` is the
memory that the compiler allows a program. It refuses more than 15.75 of the 16 GiB of v5e, and the documentation
explains the same for v5p (95 of 96). `interconnect` is the sum over all links of a chip in one direction, half the
documented bidirectional number. TPU clocks are not documented. They are computed from the documented peak and the
matrix units in jax/_src/pallas/mosaic/tpu_info.py: peak / (units x cells x 2). The matrix units of v6e and tpu7x do two
bfloat16 products per cell and cycle: the compiler estimates a product of two 16,384-square matrices at 409,000 and
445,000 operations per cycle, where one product per cell would give 262,144.

GPUs: numbers are from NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM (dense bfloat16). Memory is what the
driver reports. NVLink is half of the bidirectional 600 and 900 GB/s. The network between nodes of eight GPUs has one
200 Gb/s (A100) or 400 Gb/s (H100, H200) port for each GPU, as in NVIDIA's DGX.

Prices are rough on-demand list prices in US dollars per chip-hour. They were not looked up for this version. Override
them with `--price`.
"""

import dataclasses
from typing import Literal

Platform = Literal["tpu", "cuda", "cpu"]
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Hardware:
  """One device as JAX counts them (on tpu7x, half a chip), and its links.

  Attributes:
    name: name of the chip.
    platform: platform of its compiler.
    hbm_bytes: memory that a program can use.
    flops: peak bfloat16 operations per second.
    hbm_bandwidth: bytes per second to and from its memory.
    interconnect: bytes per second that it can send to its neighbours, over all links together.
    price: US dollars per chip-hour.
    network: bytes per second that it can send out of its node; None if there is no network besides the interconnect.
    clock: cycles per second, to convert the compiler's estimates; None if the compiler makes no estimates.
    devices_per_chip: JAX devices per chip. Prices are per chip.
    node: number of devices that the interconnect connects; the network connects nodes. None for a torus.
    runtime_bytes, runtime_share: memory that the compiler does not count: a number of bytes, and a share of the
      temporaries. 0 if it is not known.
  """

  name: str
  platform: Platform
  hbm_bytes: int
  flops: float
  hbm_bandwidth: float
  interconnect: float
  price: float
  network: float | None = None
  clock: float | None = None
  devices_per_chip: int = 1
  node: int | None = None
  runtime_bytes: int = 0
  runtime_share: float = 0.0


_TPUS = (
  Hardware("v4", "tpu", int(31.75 * GIB), 275e12, 1228e9, 300e9, 3.22, clock=1.05e9),
  Hardware("v5e", "tpu", int(15.75 * GIB), 197e12, 819e9, 200e9, 1.20, clock=1.50e9),
  Hardware("v5p", "tpu", 95 * GIB, 459e12, 2765e9, 600e9, 4.20, clock=1.75e9),
  Hardware("v6e", "tpu", int(31.25 * GIB), 918e12, 1638e9, 400e9, 2.70, clock=1.75e9),
  Hardware("tpu7x", "tpu", 94 * GIB, 1153e12, 3690e9, 300e9, 12.00, clock=2.2e9, devices_per_chip=2),
)
_GPUS = (
  Hardware("a100", "cuda", 85_100_068_864, 312e12, 2039e9, 300e9, 3.43, network=25e9, node=8),
  Hardware("h100", "cuda", 84_929_347_584, 989e12, 3352e9, 450e9, 6.88, network=50e9, node=8),
  Hardware("h200", "cuda", 151_397_597_184, 989e12, 4800e9, 450e9, 7.91, network=50e9, node=8),
)
CHIPS = {chip.name: chip for chip in (*_TPUS, *_GPUS)}


def virtual_cpu(devices: int, memory_bytes: int) -> Hardware:
  """Hardware of one virtual CPU device. All `devices` together have this machine's memory and the speed of two cores.

  The speeds are nominal, about what two cores of a server reach in float32. They serve to compare alternatives, not to
  predict the time on a machine. The compiler does not count the pages of its libraries and of the generated code, about
  20 MiB per process after a step, and the packed operands of matrix products, 3 to 10% of the temporaries.
  scripts/benchmarks/plan_memory.py measures both.
  """
  return Hardware(
    "cpu",
    "cpu",
    hbm_bytes=memory_bytes // devices,
    flops=150e9 / devices,
    hbm_bandwidth=20e9 / devices,
    interconnect=10e9 / devices,
    price=0.0,
    runtime_bytes=20 * 2**20 // devices,
    runtime_share=0.05,
  )
