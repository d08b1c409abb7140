"""Low-rank adapters in the files of PEFT, the library of adapters beside transformers."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.errors import ConfigError
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.formats import find_format
from mmjax.interop.mapping import Place, Table
from mmjax.interop.safetensors_file import SafetensorsFile, write_safetensors
from mmjax.interop.shapes import flat_shapes, flatten, per_layer, unflatten
from mmjax.models.adapters import ADAPTERS, by_kernel, kernel_norms, merged
from mmjax.run import Run
from mmjax.settings import AdapterConfig

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_PARTS = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_magnitude_vector": "magnitude"}
_REFUSED = (
  "rank_pattern",
  "alpha_pattern",
  "layer_replication",
  "trainable_token_indices",
  "lora_bias",
  "alora_invocation_tokens",
)
"""Settings of PEFT that change results and that mmjax lacks, unless they are empty."""

# Modules of transformers 5 whose name is not that of the tensor in a file: (architectures, tensor, module).
_PROJECTIONS = tuple(
  (r"^(ViT|DeiT|Dinov2|Swin)", rf"\.attention\.(attention|self)\.{name}$", rf".attention.{name[0]}_proj")
  for name in ("query", "key", "value")
)
_MODULES = (
  *_PROJECTIONS,
  (r"^(ViT|DeiT|Dinov2|Swin)", r"\.attention\.output\.dense$", ".attention.o_proj"),
  (r"^(ViT|DeiT|Swin)", r"\.intermediate\.dense$", ".mlp.fc1"),
  (r"^(ViT|DeiT|Swin)", r"(?<!attention)\.output\.dense$", ".mlp.fc2"),
  (r"^(ViT|DeiT)", r"(^|\.)encoder\.layer\.(\d+)\.", r"\1layers.\2."),
  (r"^DINOv3", r"^layer\.", "model.layer."),
)


@dataclasses.dataclass(frozen=True)
class Adapters:
  """Adapters of a model, and the parameters that were trained besides.

  Attributes:
    config: rank and factor. Its expressions are not those of the training.
    kernels: {"down": [inputs, rank], "up": [rank, outputs]} of each adapted kernel, by its path, one per layer.
      For DoRA also "magnitude" [outputs], the norms of the columns.
    others: other trained parameters, by path.
  """

  config: AdapterConfig
  kernels: Mapping[str, Mapping[str, np.ndarray]]
  others: Mapping[str, np.ndarray]


def save_adapters(run: Run, folder: str | Path) -> Path:
  """Write the adapters of a run, and the heads trained with them, as PEFT reads them beside transformers 5.

  Args:
    run: a run with adapters (experiment.adapter). Its model must be one that transformers has.
    folder: folder for adapter_model.safetensors and adapter_config.json.
  Returns: the file with the weights.
  Raises: InteropError: the run has no adapters, or transformers or PEFT cannot hold them.
  """
  if run.adapters is None:
    raise InteropError(f"the run in {run.workdir} has no adapters: train it with --adapter.rank 8")
  config, flat = run.experiment.adapter, per_layer(jax.device_get(run.params))
  kernels = {path: dict(parts) for path, parts in by_kernel(unflatten(per_layer(jax.device_get(run.adapters)))).items()}
  for path, parts in kernels.items():
    if "magnitude" in parts:
      parts["magnitude"] = np.asarray(kernel_norms(flat[path]))  # of the sum: these are the learned magnitudes
  others = {path: np.asarray(leaf) for path, leaf in flat.items() if any(re.search(e, path) for e in config.trained)}
  return write_peft(Adapters(config, kernels, others), run.experiment.model, folder)


def load_adapters(folder: str | Path, model: nn.Module, params: Any) -> dict[str, Any]:
  """Add the adapters of a PEFT folder to the parameters of their base.

  Args:
    folder: folder with adapter_model.safetensors and adapter_config.json.
    model: the base, as `load` returns it.
    params: its parameters.
  Returns: the parameters with the adapters added to their kernels, and with the heads of the folder.
  Raises: InteropError: the adapters are of another base or of a kind that mmjax lacks, or a file is damaged.
  """
  config: Any = model.config
  found, flat = read_peft(folder, config), flatten(params)
  if any(path not in flat for path in (*found.kernels, *found.others)):
    raise InteropError(f"{folder}: adapters are added to a model whose blocks are not stacked: set scan=False")
  adapters = {f"{path}/{part}": leaf for path, parts in found.kernels.items() for part, leaf in parts.items()}
  for path, parts in found.kernels.items():
    if "magnitude" in parts:
      adapters[f"{path}/magnitude"] = parts["magnitude"] - np.asarray(kernel_norms(flat[path]))
  return merged(found.config, {**unflatten({**flat, **found.others}), ADAPTERS: unflatten(adapters)})


def write_peft(adapters: Adapters, model: Any, folder: str | Path) -> Path:
  """Write adapters as PEFT does.

  Args:
    adapters: the adapters.
    model: configuration of the base.
    folder: folder to write into.
  Returns: the file with the weights.
  Raises: InteropError: transformers has no such model, or PEFT no such adapter.
  """
  architecture, table = _table(model)
  tensors: dict[str, np.ndarray] = {}
  targets = []
  for path, parts in adapters.kernels.items():
    module = _module(architecture, _whole(path, table.places[path]))
    targets.append(module)
    for theirs, ours in _PARTS.items():
      if ours in parts:
        tensors[f"{_PREFIX}{module}.{theirs}"] = np.asarray(parts[ours], np.float32).T
  heads = set()
  for path, leaf in adapters.others.items():
    name = _whole(path, table.places[path], kernel=False)
    heads.add(name.rpartition(".")[0])
    tensors[_PREFIX + name] = table.places[path].rule.to_theirs(np.asarray(leaf, np.float32))
  fields = {
    "peft_type": "LORA",
    "r": adapters.config.rank,
    "lora_alpha": adapters.config.alpha,
    "target_modules": sorted(targets),
    "modules_to_save": sorted(heads) or None,
    "use_dora": adapters.config.dora,
    "fan_in_fan_out": architecture.startswith("GPT2"),
    "bias": "none",
    "lora_dropout": 0.0,
    "inference_mode": True,
    "task_type": None,
    "base_model_name_or_path": None,
  }
  folder = Path(folder).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(fields, indent=2), encoding="utf-8")
    write_safetensors(
      folder / WEIGHTS, {name: np.ascontiguousarray(a) for name, a in tensors.items()}, {"format": "pt"}
    )
  except OSError as error:
    raise InteropError(f"{folder} cannot be written: {error}; choose another folder") from error
  return folder / WEIGHTS


def read_peft(folder: str | Path, model: Any) -> Adapters:
  """Read adapters that PEFT wrote.

  Args:
    folder: folder with adapter_model.safetensors and adapter_config.json.
    model: configuration of the base.
  Raises: InteropError: as for `load_adapters`.
  """
  folder = Path(folder).expanduser()
  if not (folder / CONFIG).exists() or not (folder / WEIGHTS).exists():
    raise InteropError(f"{folder} has no {CONFIG} and {WEIGHTS}: give the folder that PEFT's save_pretrained wrote")
  config = _config(read_json(folder / CONFIG))
  architecture, table = _table(model)
  heads = {_module(architecture, place.theirs, suffix=True): path for path, place in table.places.items()}
  paths = heads | {place.theirs: path for path, place in table.places.items()}
  file = SafetensorsFile(folder / WEIGHTS)
  kernels: dict[str, dict[str, np.ndarray]] = {}
  others: dict[str, np.ndarray] = {}
  for name in file.entries:
    inner = name.removeprefix(_PREFIX)
    part = next((part for part in _PARTS if inner.endswith("." + part)), None)
    path = paths.get(inner if part is None else inner.removesuffix(part) + "weight")
    if path is None:
      raise InteropError(f"{folder / WEIGHTS}: {name!r} is for a part that {architecture} does not have: another base?")
    tensor = np.asarray(file.read(name), np.float32)
    if part is None:
      others[path] = table.places[path].rule.to_ours(tensor)
    else:
      _whole(path, table.places[path])
      kernels.setdefault(path, {})[_PARTS[part]] = tensor.T
  _check_shapes(folder, config, kernels, others, flat_shapes(model))
  return Adapters(config, kernels, others)


def _check_shapes(folder: Path, config: AdapterConfig, kernels: Any, others: Any, shapes: Mapping[str, Any]) -> None:
  for path, parts in kernels.items():
    inputs, outputs = shapes[path]
    wanted: dict[str, tuple[int, ...]] = {"down": (inputs, config.rank), "up": (config.rank, outputs)}
    wanted |= {"magnitude": (outputs,)} if config.dora else {}
    found = {name: array.shape for name, array in parts.items()}
    if found != wanted:
      raise InteropError(f"{folder}: the adapter of {path} has {found}, and this base needs {wanted}: another base?")
  for path, array in others.items():
    if array.shape != shapes[path]:
      raise InteropError(
        f"{folder}: {path} has the shape {list(array.shape)}, and this base {list(shapes[path])}: load the base with "
        "as many classes"
      )


def _config(fields: Fields) -> AdapterConfig:
  values = fields.values
  if values.get("peft_type") != "LORA":
    raise InteropError(f"{fields.where}: peft_type is {values.get('peft_type')!r}; mmjax reads LORA")
  for name in _REFUSED:
    if values.get(name):
      raise InteropError(f"{fields.where}: {name} is {values[name]!r}, which mmjax does not have")
  if values.get("bias", "none") != "none":
    raise InteropError(f"{fields.where}: bias is {values['bias']!r}; mmjax reads adapters with bias 'none'")
  rank, alpha = values.get("r"), values.get("lora_alpha")
  if (
    not isinstance(rank, int) or isinstance(rank, bool) or rank < 1 or not isinstance(alpha, int | float) or alpha <= 0
  ):
    raise InteropError(f"{fields.where}: r is {rank!r} and lora_alpha {alpha!r}; both must be positive numbers")
  root = rank**0.5 if values.get("use_rslora") else 1.0
  return AdapterConfig(rank=rank, alpha=alpha * root, dora=bool(values.get("use_dora")))


def _table(model: Any) -> tuple[str, Table]:
  """(class of transformers, mapping of its tensors) for a model."""
  architecture = find_format("transformers").architecture(model)
  try:
    return architecture.name, Table(architecture.rules(model), flat_shapes(model))
  except ConfigError as error:
    raise InteropError(f"{architecture.name} cannot hold this model, so its adapters have no PEFT: {error}") from error


def _whole(path: str, place: Place, *, kernel: bool = True) -> str:
  """Name of the external tensor of a parameter. Raises InteropError if an adapter of it is none in PEFT."""
  if kernel and place.start is not None:
    raise InteropError(f"PEFT adapts {place.theirs} as a whole, of which {path} is a part: it has no adapter of a part")
  if kernel and len(place.shape) != 2:
    raise InteropError(f"PEFT's adapters of convolutions are not supported, and {path} is one")
  return place.theirs


def _module(architecture: str, tensor: str, *, suffix: bool = False) -> str:
  """Name of the module with a tensor in transformers 5; with `suffix`, of its parameter."""
  module, _, last = tensor.rpartition(".")
  for classes, theirs, name in _MODULES:
    if re.search(classes, architecture):
      module = re.sub(theirs, name, module)
  return f"{module}.{last}" if suffix else module
