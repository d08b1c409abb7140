"""The TPU's compiler takes the kernels of attention and norms, forward and backward, without a TPU."""

import json
import subprocess
import sys

from mmjax.plan.process import environment
from mmjax.plan.topologies import parse_topology
from tests.compilers import needs_tpu_compiler

COMPILE = """
import json, sys, jax, jax.numpy as jnp, numpy as np
from pathlib import Path
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mmjax.nn import Transformer, TransformerConfig
from mmjax.plan.hlo import analyse
from mmjax.plan.schedules import read_schedules

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
mesh = Mesh(np.array(topology.devices), ("data",))

def compiled(batch, heads, dim, length, causal, padded):
  width = heads * dim
  model = Transformer(TransformerConfig(width, 2, heads, scan=True, remat="hidden", dtype="bfloat16"), causal)
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, length, width)))

  def loss(variables, x, mask):
    variables = jax.lax.pcast(variables, "data", to="varying")  # as training does: gradients are summed once
    tokens, _ = model.apply(variables, x, mask if padded else None)
    return jax.lax.psum(tokens.astype(jnp.float32).sum(), "data")

  mapped = jax.shard_map(loss, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
  shape = lambda s, dtype, spec: jax.ShapeDtypeStruct(s, dtype, sharding=NamedSharding(mesh, spec))
  arguments = (
    jax.tree.map(lambda v: shape(v.shape, v.dtype, P()), variables),
    shape((4 * batch, length, width), jnp.bfloat16, P("data")),
    shape((4 * batch, length), bool, P("data")),
  )
  return jax.jit(jax.grad(mapped)).lower(*arguments).compile().as_text()

for name, arguments in json.loads(sys.argv[2]).items():
  text = compiled(*arguments)
  cost = analyse(text, read_schedules(Path(sys.argv[1])))
  names = sorted(kernel.name.partition(".")[0] for kernel in cost.kernels if "pallas_call" in kernel.source)
  length = arguments[3]
  print(json.dumps({"kernels": names, "unknown": cost.unknown_kernels, "logits": f"{length},{length}]" in text}))
"""
# Examples of a device, heads, their dimensions, tokens, causal, padded.
CASES = {
  "CLIP's text tower": (8, 2, 64, 77, True, True),
  "heads across tiles, unaligned rows": (8, 16, 72, 65, False, False),
  "H/14's heads, for which examples are padded": (8, 16, 80, 257, False, False),
  "a last program beyond the batch, blocks of norms beyond the rows": (39, 2, 64, 257, False, True),
}


@needs_tpu_compiler
def test_kernels_are_compiled_scheduled_and_never_write_logits(tmp_path):
  command = [sys.executable, "-c", COMPILE, str(tmp_path), json.dumps(CASES)]
  variables = environment(parse_topology("v5e:2x2"), tmp_path)
  result = subprocess.run(command, capture_output=True, text=True, env=variables)
  assert result.returncode == 0, result.stderr[-3000:]
  rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
  assert len(rows) == len(CASES)
  for row in rows:
    assert {name.partition("_")[0] for name in row["kernels"]} == {"attention", "norm"}
    assert {name.split("_")[1] for name in row["kernels"]} == {"forward", "backward"}
    assert row["unknown"] == [] and not row["logits"]
