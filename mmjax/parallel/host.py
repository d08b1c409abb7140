"""Settings of the host's memory allocator and of XLA's CPU compiler, for training on a CPU.

Call `tune_allocator` and `tune_compiler` before JAX starts. They do nothing on other platforms.

XLA's CPU backend allocates gigabytes in every step and frees them at its end. glibc returns such blocks to the kernel,
and the next step faults every page in again. This took 1.2 of 4.9 s per step at the benchmark's `small` shapes.
"""

import ctypes
import glob
import importlib.metadata
import importlib.util
import logging
import os
import platform

import jax

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
# Blocks (size, count) that are allocated and freed in advance. Small requests use them instead of the large free block
# that a step leaves behind, which would then be too small for the next step. Unused blocks cost addresses, not memory.
_SPARE_BLOCKS = ((1 << 14, 2048), (1 << 16, 2048), (1 << 20, 1024), (1 << 24, 64), (1 << 26, 16))
# The concurrency-optimised scheduler runs recomputation as early as possible, which undoes rematerialisation.
_SCHEDULER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
# With jaxlib 0.10, Eigen's matmuls are 10% to 25% faster than YNNPACK's at widths of a few hundred, but its reductions
# are not. With 0.12, YNNPACK's matmuls are faster: 1.2 times in a step of ViT-B/32.
_EIGEN = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
_FLAGS = {"0.10": (_EIGEN, _SCHEDULER), "0.12": (_SCHEDULER,)}
"""XLA flags for each release of jaxlib, as measured with that release (scripts/benchmarks/train_step.py)."""
_log = logging.getLogger(__name__)

# JAX's plugins, and the device files that exist if their hardware is present.
_ACCELERATORS = {
  "libtpu": ("/dev/accel*", "/dev/vfio/[0-9]*"),
  "jax_cuda12_plugin": ("/dev/nvidia[0-9]*", "/dev/dxg"),
  "jax_cuda13_plugin": ("/dev/nvidia[0-9]*", "/dev/dxg"),
  "jax_rocm60_plugin": ("/dev/kfd",),
  "jax_rocm7_plugin": ("/dev/kfd",),
  "jax_rocm10_plugin": ("/dev/kfd",),
  "jax_oneapi_plugin": ("/dev/dri/renderD*",),
}


def on_cpu() -> bool:
  """True if JAX will run on the CPU.

  If JAX_PLATFORMS is set, its value decides. Otherwise JAX runs on the CPU if no accelerator is present together with
  its plugin. A plugin alone is not enough, because `plan` installs the compilers of hardware that is absent.
  """
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if platforms:
    return platforms == "cpu"
  installed = (nodes for name, nodes in _ACCELERATORS.items() if importlib.util.find_spec(name))
  return not any(glob.glob(pattern) for nodes in installed for pattern in nodes)


def _glibc() -> ctypes.CDLL | None:
  if platform.libc_ver()[0] != "glibc" or not on_cpu():
    return None
  libc = ctypes.CDLL(None)
  libc.malloc.restype = ctypes.c_void_p
  libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
  return libc


def tune_allocator() -> bool:
  """Makes malloc keep freed memory for the next step. Returns True if it took effect (glibc, CPU).

  It also turns asynchronous dispatch off on the CPU. There, asynchronous dispatch overlaps nothing, and it keeps a
  step's temporary memory alive until the next step has allocated its own: 1.6 instead of 1.0 GB at `small`, batch 64.
  """
  libc = _glibc()
  if libc is None:
    return False
  settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 1 << 28), (_M_ARENA_MAX, 1))
  accepted = sum(libc.mallopt(parameter, value) for parameter, value in settings) == len(settings)
  blocks = []
  for size, count in _SPARE_BLOCKS:
    for _ in range(count):
      blocks.append(libc.malloc(size))
      libc.malloc(64)  # never freed, so that freed neighbours do not merge
  for block in blocks:
    libc.free(block)
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  return accepted


def trim_allocator() -> bool:
  """Returns free memory to the kernel. Call it once, after the first step, to return the 0.3 GB that compiling used.

  Returns True if memory was returned.
  """
  libc = _glibc()
  return libc is not None and bool(libc.malloc_trim(1 << 28))


def tune_compiler() -> bool:
  """Adds the fastest flags for training with XLA's CPU backend to XLA_FLAGS.

  Flags that the user has set stay unchanged. XLA aborts on an unknown flag. A release of jaxlib whose flags were not
  measured therefore gets none, and a warning is logged. Returns True if flags were added.
  """
  if not on_cpu():
    return False
  version = importlib.metadata.version("jaxlib")
  known = _FLAGS.get(".".join(version.split(".")[:2]))
  if known is None:
    _log.warning(
      f"jaxlib {version} trains on CPU with XLA's default flags: faster flags are known only for {' and '.join(_FLAGS)}"
    )
    return False
  flags = os.environ.get("XLA_FLAGS", "")
  added = [flag for flag in known if flag.partition("=")[0] not in flags]
  os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *added])
  return bool(added)
