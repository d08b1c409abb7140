"""The host's allocator and compiler, tuned for training on CPU. Call both before JAX starts; no-ops elsewhere.

XLA's CPU backend asks for gigabytes at every step and gives them back at its end. glibc hands such a block back to
the kernel, and the next step faults every page in anew: 1.2 of 4.9 s a step at the benchmark's `small` shapes.
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
# Free blocks (size, count) laid down beforehand: small requests take from these, and not from the large hole that
# a step leaves behind, which would then be too small for the next step. Untouched, they cost addresses, not memory.
_SPARE_BLOCKS = ((1 << 14, 2048), (1 << 16, 2048), (1 << 20, 1024), (1 << 24, 64), (1 << 26, 16))
# The other scheduler runs recomputation as early as it can, which undoes rematerialisation.
_SCHEDULER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
# With jaxlib 0.10, Eigen's matmuls are a tenth to a quarter faster than YNNPACK's at widths of a few hundred; its
# reductions are not. With 0.12, YNNPACK's matmuls are the faster ones: 1.2 times in a step of ViT-B/32.
_EIGEN = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
_FLAGS = {"0.10": (_EIGEN, _SCHEDULER), "0.12": (_SCHEDULER,)}
"""The flags for a release of jaxlib, as measured with it (scripts/benchmarks/train_step.py)."""
_log = logging.getLogger(__name__)

# JAX's plugins, and the device files that their hardware shows itself by.
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
  """Whether JAX will run on CPU: JAX_PLATFORMS says so, or no accelerator is here together with its plugin.

  A plugin alone says nothing: `plan` needs the compilers of hardware that is not here.
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
  """Makes malloc keep freed memory for the next step. Returns whether it did (glibc, CPU).

  Also turns asynchronous dispatch off on CPU, where it overlaps nothing and only keeps a step's temporary alive
  until after the next step has asked for another: 1.0 instead of 1.6 GB at `small`, batch 64.
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
      libc.malloc(64)  # stays, so that freed neighbours do not merge
  for block in blocks:
    libc.free(block)
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  return accepted


def trim_allocator() -> bool:
  """Gives free memory back to the kernel; for once, after the first step: what compiling took, some 0.3 GB.

  Returns whether anything was given back.
  """
  libc = _glibc()
  return libc is not None and bool(libc.malloc_trim(1 << 28))


def tune_compiler() -> bool:
  """Adds the flags that XLA's CPU backend trains fastest with to XLA_FLAGS, unless the user set them.

  Returns whether it did. XLA aborts on a flag that it does not know, so a jaxlib whose flags were not measured gets
  none, and a warning says so.
  """
  if not on_cpu():
    return False
  version = importlib.metadata.version("jaxlib")
  known = _FLAGS.get(".".join(version.split(".")[:2]))
  if known is None:
    _log.warning(
      f"jaxlib {version} trains on CPU with XLA's own settings: the faster ones are known for {' and '.join(_FLAGS)}"
    )
    return False
  flags = os.environ.get("XLA_FLAGS", "")
  added = [flag for flag in known if flag.partition("=")[0] not in flags]
  os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *added])
  return bool(added)
