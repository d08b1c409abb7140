"""Programs of an export: a part of a model in StableHLO or ONNX."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmjax.deploy.formats import DeployError
from mmjax.deploy.packing import unpack
from mmjax.deploy.parts import Part
from mmjax.nn.forms import plain_forms

if TYPE_CHECKING:
  import flax.linen as nn

PLATFORMS = ("cpu", "cuda", "tpu")


def computed(part: Part, model: nn.Module, packed: Mapping[str, Any], arrays: Mapping[str, Array]) -> Array:
  """Compute a part of a model from packed weights.

  Args:
    part: the part.
    model: the linen module.
    packed: result of `pack`.
    arrays: inputs by name.
  """
  return part(model, unpack(packed), arrays)


def used_weights(part: Part, model: nn.Module, packed: Mapping[str, np.ndarray]) -> list[str]:
  """Names of the weights that a part reads."""
  names = sorted(packed)
  arrays = {one.name: jax.ShapeDtypeStruct((1, *one.shape), one.dtype) for one in part.inputs}
  flat = lambda weights, arrays: computed(part, model, dict(zip(names, weights, strict=True)), arrays)
  shapes = [jax.ShapeDtypeStruct(packed[name].shape, packed[name].dtype) for name in names]
  kept = jax.export.export(jax.jit(flat), platforms=("cpu",))(shapes, arrays).module_kept_var_idx
  return [names[place] for place in kept if place < len(names)]


def to_stablehlo(part: Part, model: nn.Module, packed: Mapping[str, np.ndarray], used: Sequence[str]) -> bytes:
  """Lower a part to StableHLO, for PLATFORMS and any batch size.

  Args:
    part: the part.
    model: the linen module.
    packed: result of `pack`.
    used: names of the weights that the part reads. They are arguments of the program.
  Returns: the program, as `jax.export.deserialize` reads it. It is called with (used weights by name, arrays by name).
  Raises: DeployError: flatbuffers is not installed.
  """
  (batch,) = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
  weights = {name: jax.ShapeDtypeStruct(packed[name].shape, packed[name].dtype) for name in used}
  arrays = {one.name: jax.ShapeDtypeStruct((batch, *one.shape), one.dtype) for one in part.inputs}
  others = {name: array for name, array in packed.items() if name not in weights}

  def function(weights: Mapping[str, Array], arrays: Mapping[str, Array]) -> Array:
    unread = {name: jnp.zeros(array.shape, array.dtype) for name, array in others.items()}  # the module asks for them
    return computed(part, model, unread | dict(weights), arrays)

  made = jax.export.export(jax.jit(function), platforms=PLATFORMS)(weights, arrays)
  try:
    return bytes(made.serialize())
  except ImportError:  # JAX does not install what its serialization needs
    raise DeployError("--to stablehlo needs flatbuffers: pip install 'mmjax[deploy]'") from None


def to_onnx(part: Part, model: nn.Module, packed: Mapping[str, np.ndarray]) -> bytes:
  """Convert a part to ONNX, with its weights, for any batch size.

  Args:
    part: the part.
    model: the linen module.
    packed: result of `pack`.
  Returns: the model, as ONNX Runtime reads it. Its inputs have the names of the arrays, and its output is "output".
  Raises: DeployError: jax2onnx is not installed, or it cannot convert an operation of the model.
  """
  try:
    import jax2onnx
  except ImportError:
    raise DeployError(
      "--to onnx needs jax2onnx: pip install 'mmjax[onnx]', and pip install --no-deps jax2onnx==0.17.1"
    ) from None
  logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of shapes that it leaves out
  names = [one.name for one in part.inputs]
  function = lambda *arrays: computed(part, model, packed, dict(zip(names, arrays, strict=True)))
  shapes = [jax.ShapeDtypeStruct(("batch", *one.shape), one.dtype) for one in part.inputs]
  try:
    with plain_forms(), jax.disable_jit():  # jax2onnx 0.17.1 reads a nested jit by a name that JAX 0.12 has removed
      made: Any = jax2onnx.to_onnx(function, shapes, model_name=part.name)
  except Exception as error:  # the converter raises many types of exceptions
    raise DeployError(
      f"jax2onnx cannot convert the part {part.name!r} of this model: {error!s:.300}. Use --to stablehlo"
    ) from error
  _rename(made.graph, dict(zip([one.name for one in made.graph.input], names, strict=True)))
  _rename(made.graph, {made.graph.output[0].name: "output"})
  return made.SerializeToString()


def dynamic_int8(program: bytes) -> bytes:
  """Quantise the linear layers of an ONNX model by ONNX Runtime: int8 weights, and activations rounded as it runs.

  Args:
    program: the model, with float32 weights that are constants.
  Returns: the model, with MatMulInteger for each product with a constant matrix.
  Raises: DeployError: onnxruntime is not installed, or cannot quantise the model.
  """
  try:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
  except ImportError:
    raise DeployError("--dtype int8-dynamic needs ONNX Runtime: pip install 'mmjax[onnx]'") from None
  with tempfile.TemporaryDirectory() as folder:
    out, said = Path(folder) / "out.onnx", logging.getLogger()
    said.addFilter(_no_advice)
    try:
      quantize_dynamic(
        onnx.load_from_string(program),
        out,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
      )
    except Exception as error:  # raises many types of exceptions
      raise DeployError(f"ONNX Runtime cannot quantise this model: {error!s:.300}. Use --dtype int8") from error
    finally:
      said.removeFilter(_no_advice)
    return out.read_bytes()


def _no_advice(record: logging.LogRecord) -> bool:
  """False for the advice to preprocess a model, which would store the tables of embeddings in float32 again."""
  return "pre-processing before quantization" not in record.getMessage()


def _rename(graph: Any, names: Mapping[str, str]) -> None:
  """Rename values of an ONNX graph."""
  for value in (*graph.input, *graph.output, *graph.value_info):
    value.name = names.get(value.name, value.name)
  for node in graph.node:
    for values in (node.input, node.output):
      for place, name in enumerate(values):
        values[place] = names.get(name, name)
