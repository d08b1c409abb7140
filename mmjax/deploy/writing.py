"""Export of a run: the programs, their weights, the preprocessing, the tokenizer and a manifest."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import mmjax
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import EvalImage
from mmjax.deploy import standalone
from mmjax.deploy.formats import DTYPES, DYNAMIC, FORMATS, LEAST_COSINE, LIMIT, DeployError, check_choice
from mmjax.deploy.packing import LINEAR, SCALE, pack
from mmjax.deploy.parts import TEXTS, Part, check_rows, parts_of
from mmjax.deploy.programs import computed, dynamic_int8, to_onnx, to_stablehlo, used_weights
from mmjax.deploy.standalone import MANIFEST, PREPROCESS, TOKENIZER, WEIGHTS
from mmjax.interop.run_image import write_image
from mmjax.models.protocols import Compares, missing
from mmjax.nn.int8 import linear_kernels

if TYPE_CHECKING:
  from mmjax.run import Run

_PAGE = Path(__file__).parent / "page"
_SIZES = (1, 2, 5)
"""Batch sizes that an export is checked with. A program for one fixed size would fail."""


def export(run: Run, to: str, folder: Path | None = None, *, dtype: str = "float32", limit: float = LIMIT) -> Path:
  """Export what a run's model computes, so that it runs without the code of the model.

  Args:
    run: the run.
    to: "stablehlo" (for JAX and other users of XLA; cpu, cuda and tpu) or "onnx" (for ONNX Runtime, also in a browser).
    folder: folder to write. An export that is there is replaced. None: WORKDIR/export/TO-DTYPE.
    dtype: dtype of the stored weights: float32, bfloat16, float16, or int8 with a scale per output channel. With
      int8-dynamic, linear layers also round their input to int8.
    limit: largest difference between the outputs of the export and those of the model with the same weights.
  Returns: the folder.
  Raises: DeployError: the model has nothing that the format holds, the outputs differ by more than `limit`, or the
    folder holds other files. Nothing is written then.
  """
  check_choice("format", to, FORMATS)
  check_choice("dtype", dtype, DTYPES)
  if to == "onnx" and dtype == "bfloat16":
    raise DeployError("ONNX Runtime has no bfloat16 on a CPU: use --dtype float16 or int8, or --to stablehlo")
  folder = run.workdir / "export" / f"{to}-{dtype}" if folder is None else folder.expanduser()
  _check_free(folder)
  partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
  try:
    partial.mkdir(parents=True)
    _write(run, to, dtype, partial, limit)
    if folder.exists():
      shutil.rmtree(folder)
    partial.replace(folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return folder


def _check_free(folder: Path) -> None:
  if folder.exists() and not folder.is_dir():
    raise DeployError(f"{folder} is a file: give a folder as --out")
  found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
  others = sorted(found - _of_export(folder)) if found else []
  if others:
    raise DeployError(
      f"{folder} holds other files ({', '.join(others[:3])}), which it would delete: give an empty folder as --out"
    )


def _of_export(folder: Path) -> set[str]:
  """Names that an export wrote into a folder, with what Python adds. Empty if there is no export."""
  try:
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return {MANIFEST, "__pycache__", *(name.partition("/")[0] for name in files)}
  except (OSError, ValueError, KeyError, TypeError):
    return set()


def _write(run: Run, to: str, dtype: str, folder: Path, limit: float) -> None:
  parts = _parts(run, to)
  packed = pack(jax.device_get(run.params), dtype, linear_kernels(run.model, run.experiment.model.example(1)))
  _write_inputs(run, parts, folder)
  shutil.copy(standalone.__file__, folder / "run.py")
  if to == "onnx" and _fits_page(run, parts):
    for path in sorted(_PAGE.iterdir()):
      shutil.copy(path, folder / path.name)
  manifest = _described(run, to, dtype)
  used = {part.name: used_weights(part, run.model, packed) for part in parts}
  for part in parts:
    file, weights = f"{part.name}.{to}", used[part.name]
    program = _program(run, part, to, dtype, packed, weights)
    (folder / file).write_bytes(program)
    manifest["parts"][part.name] = _part_fields(part, file) | {"weights": weights if to == "stablehlo" else []}
  if to == "stablehlo":
    _write_weights({name: packed[name] for names in used.values() for name in names}, folder, manifest)
  _check(run, parts, packed, folder, manifest, limit)
  _write_manifest(folder, manifest)


def _parts(run: Run, to: str) -> list[Part]:
  """Parts of a model that a format holds.

  An export in ONNX has no parts that write texts: jax2onnx 0.17.1 cannot convert their loop for a symbolic batch.
  """
  parts = parts_of(run)
  kept = [part for part in parts if to != "onnx" or part.gives != "ids"]
  if not kept:
    raise DeployError(f"the model writes texts ({parts[0].name}), which an export in ONNX cannot: use --to stablehlo")
  return kept


def _program(run: Run, part: Part, to: str, dtype: str, packed: Mapping[str, np.ndarray], weights: list[str]) -> bytes:
  if to == "stablehlo":
    return to_stablehlo(part, run.model, packed, weights)
  if dtype != DYNAMIC:
    return to_onnx(part, run.model, packed)
  linear = {name.removesuffix(LINEAR) for name in packed if name.endswith(LINEAR)}
  params = jax.device_get(run.params)
  tables = {name: array for name, array in pack(params, "int8").items() if name.removesuffix(SCALE) not in linear}
  whole = {name: array for name, array in pack(params, "float32").items() if name in linear}
  return dynamic_int8(to_onnx(part, run.model, tables | whole))


def _write_inputs(run: Run, parts: list[Part], folder: Path) -> None:
  """Write the preprocessing of images and the tokenizer, if the model reads images and texts."""
  prepared = {one.prepare for part in parts for one in part.inputs}
  if "image" in prepared and run.transform is not None:
    write_image(run.transform, folder / PREPROCESS)
  if "text" in prepared and run.tokenizer is not None:
    run.tokenizer.save(folder / TOKENIZER)


def _described(run: Run, to: str, dtype: str) -> dict[str, Any]:
  """Fields of the manifest that do not depend on the programs."""
  found: dict[str, Any] = {
    "version": 1,
    "format": to,
    "dtype": dtype,
    "run": {"name": run.workdir.resolve().name, "step": run.step, "model": type(run.experiment.model).__name__},
    "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    | {"mmjax": mmjax.__version__},
    "bfloat16": [],
    "parts": {},
  }
  names = {part.name for part in parts_of(run)}
  if not missing(run.model, Compares):
    scale: Any = run.model.apply({"params": run.params}, method="logit_scale")
    bias: Any = run.model.apply({"params": run.params}, method="logit_bias")
    found |= {"logit_scale": float(scale), "logit_bias": float(bias)}
  if "classify" in names:
    found["classes"] = list(run.classes)
  if "predict" in names:
    found["number"] = run.number
  if "answer" in names and run.tokenizer is not None:
    found["answers"] = list(run.tokenizer.answers)
  return found


def _part_fields(part: Part, file: str) -> dict[str, Any]:
  inputs = [
    {"name": one.name, "shape": ["batch", *one.shape], "dtype": one.dtype, "prepare": one.prepare}
    for one in part.inputs
  ]
  return {"file": file, "inputs": inputs}


def _write_weights(packed: Mapping[str, np.ndarray], folder: Path, manifest: dict[str, Any]) -> None:
  low = sorted(name for name, array in packed.items() if array.dtype == jnp.bfloat16)
  manifest["bfloat16"] = low
  bits: dict[str, Any] = {name: array.view(np.uint16) if name in set(low) else array for name, array in packed.items()}
  whole = all(array.dtype != np.int8 for array in bits.values())
  (np.savez if whole else np.savez_compressed)(folder / WEIGHTS, **bits)  # rounded weights fit in fewer bits than 8


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
  files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
  sums = {path.relative_to(folder).as_posix(): standalone.checksum(path) for path in files}
  content = manifest | {"bytes": sum(path.stat().st_size for path in files), "files": sums}
  (folder / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check(
  run: Run,
  parts: list[Part],
  packed: Mapping[str, np.ndarray],
  folder: Path,
  manifest: dict[str, Any],
  limit: float,
) -> None:
  """Compare an export with the model, and add the numbers to the manifest. Raises DeployError if they differ."""
  from mmjax.deploy.loading import load

  for part in parts:
    spec = manifest["parts"][part.name]
    dtype = "int32" if part.gives == "ids" else "float32"
    spec["output"] = {"shape": ["batch", *_row_shape(run, part)], "dtype": dtype, "gives": part.gives}
  _write_manifest(folder, manifest)
  loaded = load(folder)
  for part in parts:
    largest, cosines = 0.0, []
    for size in _SIZES:
      rows = check_rows(part, run, size, seed=size)
      same = np.asarray(_from_packed(part, run.model, packed, rows))
      first = np.asarray(_from_params(part, run.model, run.params, rows))
      found = loaded.compute(part.name, rows)
      largest = max(largest, float(np.abs(found - same).max()))
      cosines.append(_cosine(found, first))
    apart = manifest["format"] == "onnx" and manifest["dtype"] == DYNAMIC
    if apart and min(cosines) < LEAST_COSINE:
      raise DeployError(
        f"the exported part {part.name!r} has a cosine of {min(cosines):.3f} to the model, less than {LEAST_COSINE}: "
        "its activations do not fit int8. Nothing was written. Use --dtype int8, or fine-tune with the command quantize"
      )
    if not apart and not largest <= limit:
      raise DeployError(
        f"the exported part {part.name!r} differs from the model by {largest:.2g}, more than {limit:g}: nothing was "
        "written. Please report the model's configuration"
      )
    checked = {"max_difference": largest, "limit": None if apart else limit, "batch_sizes": list(_SIZES)}
    manifest["parts"][part.name]["checked"] = checked | {"least_cosine_to_float32": min(cosines)}
  _check_inputs(run, parts, loaded)
  if _has_samples(run, parts):
    manifest["samples"] = _samples(loaded)


def _has_samples(run: Run, parts: list[Part]) -> bool:
  """True if a model embeds images and texts that mmjax prepares."""
  return {"image": "image", "text": "text"}.items() <= {p.name: p.inputs[0].prepare for p in parts}.items()


def _fits_page(run: Run, parts: list[Part]) -> bool:
  """True if the page can run an export: it has the image transform and the tokenizers that mmjax trains."""
  return _has_samples(run, parts) and isinstance(run.transform, EvalImage) and type(run.tokenizer) is Tokenizer


def _samples(loaded: Any) -> dict[str, Any]:
  """A small image and texts, with their token ids and embeddings, for a check where the export runs."""
  rgba = np.random.default_rng(1).integers(0, 256, (9, 12, 4)).astype(np.uint8)
  rgba[..., 3] = 255  # browsers round the colours of transparent pixels
  image, texts = Image.fromarray(rgba), list(TEXTS)
  return {
    "image": {"width": 12, "height": 9, "rgba": rgba.flatten().tolist()},
    "texts": texts,
    "ids": loaded.tokenizer(texts).tolist(),
    "embeddings": {"image": loaded.encode_image([image])[0].tolist(), "text": loaded.encode_text(texts).tolist()},
  }


def _check_inputs(run: Run, parts: list[Part], loaded: Any) -> None:
  """Compare the written transform and tokenizer with those of the run."""
  prepared = {one.prepare for part in parts for one in part.inputs}
  tokenizer = run.tokenizer
  if "text" in prepared and tokenizer and not np.array_equal(loaded.tokenizer(TEXTS), tokenizer(TEXTS)):
    raise DeployError("the written tokenizer makes other ids than that of the run: nothing was written")
  if "image" in prepared and run.transform is not None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    if not np.array_equal(loaded.preprocess(image), run.preprocess(image)):
      raise DeployError("the written preprocessing makes other pixels than that of the run: nothing was written")


def _row_shape(run: Run, part: Part) -> tuple[int, ...]:
  arrays = {one.name: jax.ShapeDtypeStruct((1, *one.shape), one.dtype) for one in part.inputs}
  return jax.eval_shape(lambda arrays: part(run.model, run.params, arrays), arrays).shape[1:]


def _from_packed(part: Part, model: Any, packed: Any, rows: Any) -> Any:
  return jax.jit(computed, static_argnums=(0, 1))(part, model, packed, rows)


def _from_params(part: Part, model: Any, params: Any, rows: Any) -> Any:
  return jax.jit(lambda params, rows: part(model, params, rows))(params, rows)


def _cosine(found: np.ndarray, wanted: np.ndarray) -> float:
  """Least cosine between rows. For one number per row, that of the whole batch."""
  a, b = (x[None] if x.ndim == 1 else x for x in (found.astype(np.float64), wanted.astype(np.float64)))
  norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  return float(np.min(np.sum(a * b, axis=-1) / np.maximum(norms, 1e-30)))
