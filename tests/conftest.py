"""Every test runs on eight virtual CPU devices, with strict dtype and rank promotion."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The programs are tiny and compiling them takes far longer than running them; this halves it and changes no HLO.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
