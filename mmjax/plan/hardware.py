"""What a chip can do, by its maker's published numbers, and what an hour of it costs.

TPU memory, peak and bandwidths: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. A program may
use what the compiler lets it: it refuses more than 15.75 of v5e's 16 GiB, and the documentation explains the same of
v5p (95 of 96). `interconnect` is one direction of all links of a chip together, half the documented bidirectional
figure. TPU clocks are not documented; they follow from the documented peak and the matrix units a compiler knows
(jax/_src/pallas/mosaic/tpu_info.py): peak / (units x cells x 2). The units of v6e and tpu7x take two bfloat16 products
per cell and cycle: the compiler itself estimates a product of two 16,384-square matrices at 409,000 and 445,000
operations a cycle, where one product per cell would make 262,144.

GPU numbers: NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM (dense bfloat16); memory as the driver reports
it. NVLink: half of the bidirectional 600 and 900 GB/s. Network between nodes of eight: one 200 Gb/s (A100) or 400 Gb/s
(H100, H200) port for each GPU, as in NVIDIA's DGX.

Prices are rough list prices on demand, in US dollars a chip-hour, not looked up for this version: override them
(`--price`), yours differ anyway.
"""

import dataclasses
from typing import Literal

Platform = Literal["tpu", "cuda", "cpu"]
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Hardware:
  """One device as JAX counts them (half a chip of tpu7x), and its links.

  Attributes:
    name: of the chip.
    platform: which compiler serves it.
    hbm_bytes: memory a program can have.
    flops: peak bfloat16 operations a second.
    hbm_bandwidth: bytes a second to and from its memory.
    interconnect: bytes a second that it can send to its neighbours, over all links together.
    network: bytes a second that it can send beyond its node; None where the interconnect is all there is.
    clock: cycles a second, for the compiler's estimates in cycles; None where the compiler makes none.
    price: US dollars a chip-hour.
    devices_per_chip: JAX devices in a chip that is rented as a whole.
    node: devices that the interconnect joins before the network takes over; None for a torus.
    runtime_bytes, runtime_share: memory that running takes beside what the compiler counts: so much, and this share of
      the temporaries. 0 where it is not known.
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
  """A share of this machine: `devices` virtual ones divide its memory and two cores' worth of arithmetic.

  The rates are nominal, about what two cores of a server give in float32: they order alternatives, and predict no
  machine. The compiler does not count the pages of its own libraries and of the code it made, about 20 MiB of a process
  once a step has run, nor what matrix products pack their operands into, 3 to 10% of the temporaries:
  scripts/benchmarks/plan_memory.py measures it.
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
