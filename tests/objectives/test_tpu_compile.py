"""A global batch of 2^20 pairs on 256 TPU chips, by the TPU compiler itself, without a TPU."""

import json
import os
import subprocess
import sys

from tests.compilers import needs_tpu_compiler

COMPILE = """
import json, jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mmjax.objectives import clip_loss, siglip_loss

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:16x16")
mesh = Mesh(np.array(topology.devices).reshape(256), ("data",))
features = jax.ShapeDtypeStruct((1 << 20, 512), jnp.float32, sharding=NamedSharding(mesh, P("data")))
scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, P()))

def clip(x, y, s, b):
  return clip_loss(x, y, logit_scale=s, axis_name="data")

def siglip(x, y, s, b):
  return siglip_loss(x, y, logit_scale=s, logit_bias=b, axis_name="data")

for loss in (clip, siglip):
  mapped = jax.shard_map(loss, mesh=mesh, in_specs=(P("data"), P("data"), P(), P()), out_specs=P())
  step = jax.jit(jax.value_and_grad(mapped, (0, 1, 2, 3)))
  compiled = step.lower(features, features, scalar, scalar).compile()
  memory = compiled.memory_analysis()
  print(json.dumps({"temporaries": memory.temp_size_in_bytes, "gather": "all-gather" in compiled.as_text()}))
"""


@needs_tpu_compiler
def test_a_batch_of_a_million_pairs_needs_under_64_mib_of_temporaries_a_chip():
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-256",
    "PYTHONPATH": os.pathsep.join(path for path in (os.getcwd(), *sys.path) if path),
  }
  result = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
  assert result.returncode == 0, result.stderr[-2000:]
  rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
  assert len(rows) == 2
  for row in rows:
    assert row["temporaries"] < 64 * 2**20
    assert not row["gather"]
