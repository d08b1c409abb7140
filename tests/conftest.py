"""Every test runs on eight virtual CPU devices, with strict dtype and rank promotion."""

import os
import socket

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The programs are tiny and compiling them takes far longer than running them; this halves it and changes no HLO.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import hypothesis
import jax
import pytest

# The same inputs every time, and no more than tests have time for: scripts/benchmarks/fuzz.py is the long form.
hypothesis.settings.register_profile("quick", max_examples=50, derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("quick")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  """Nothing here may reach beyond this machine: set-up is the only time that downloads."""
  connect = socket.socket.connect

  def local_only(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
      raise AssertionError(f"a connection to {address} was tried")
    return connect(self, address)

  monkeypatch.setattr(socket.socket, "connect", local_only)
