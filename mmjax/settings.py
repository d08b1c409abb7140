"""Settings of a run that belong to no model, data or evaluator: optimiser, numerics, schedule, pretrained weights."""

import dataclasses
from pathlib import Path
from typing import Literal

Algorithm = Literal["adam", "lion", "adafactor", "muon", "momentum"]
Schedule = Literal["cosine", "rsqrt", "constant"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Optimiser, schedule and per-parameter rules."""

  algorithm: Algorithm = "adam"
  """Update rule. Decoupled weight decay is added to each of them (adam with weight_decay is AdamW)."""
  learning_rate: float = 1e-3
  """Peak learning rate."""
  schedule: Schedule = "cosine"
  """Learning rate after the linear warm-up: cosine to zero, or rsqrt or constant with a linear cooldown."""
  cycles: int = 1
  """Number of cycles of the cosine, each from the peak to zero over the same number of steps (Huang et al. 2017, for
  snapshot ensembles)."""
  warmup_steps: int = 100
  """Steps of linear warm-up. Warm-up and cooldown are shortened if they exceed half of run.steps."""
  cooldown_steps: int = 0
  """Steps of linear decrease to zero at the end (rsqrt and constant only)."""
  b1: float = 0.9
  """Decay of the first moment (adam, lion) or of the momentum (momentum, muon)."""
  b2: float = 0.98
  """Decay of the second moment (adam, lion)."""
  epsilon: float = 1e-6
  """Added to the denominator (adam)."""
  weight_decay: float = 0.2
  """Decoupled weight decay. It is multiplied by the learning rate and by the multiplier of weight_decay_rules."""
  clip_norm: float = 1.0
  """Largest global gradient norm. Larger gradients are scaled down to it. 0: no clipping."""
  ema_decay: float = 0.0
  """Decay of the moving average of the parameters, which evaluation then uses (evaluation.average). 0: no moving
  average."""
  learning_rate_rules: tuple[tuple[str, float], ...] = ((".*", 1.0),)
  """(regular expression of parameter paths, multiplier of the learning rate) pairs. The first match counts."""
  weight_decay_rules: tuple[tuple[str, float], ...] = (
    ("(kernel|embedding)$", 1.0),
    (".*", 0.0),
  )
  """(regular expression of parameter paths, multiplier of the weight decay) pairs. The first match counts."""
  frozen: tuple[str, ...] = ()
  """Regular expressions of the paths of parameters that are not trained: no gradient, optimiser state or decay."""
  layer_decay: float = 1.0
  """Factor of the learning rate from each block of a tower to the one below it (BEiT: 0.65 to 0.75). 1: the same for
  all."""
  top_layers: int | None = None
  """Number of top blocks of each tower that are trained, with all heads. 0: only the heads. None: all."""

  def __post_init__(self):
    if not 0 < self.layer_decay <= 1:
      raise ValueError(f"optimizer.layer_decay is {self.layer_decay}: it must lie in (0, 1]")
    if self.top_layers is not None and self.top_layers < 0:
      raise ValueError(f"optimizer.top_layers is {self.top_layers}: it must not be negative")
    if self.cycles < 1 or (self.cycles > 1 and self.schedule != "cosine"):
      raise ValueError(f"optimizer.cycles is {self.cycles}: it must be at least 1, and more need the schedule cosine")
    for name in ("learning_rate", "weight_decay", "clip_norm", "warmup_steps", "cooldown_steps"):
      if getattr(self, name) < 0:
        raise ValueError(f"optimizer.{name} is {getattr(self, name)}: it must not be negative")
    for name in ("b1", "b2", "ema_decay"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f"optimizer.{name} is {getattr(self, name)}: it must lie in [0, 1)")


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
  """Low-rank adapters of linear layers (LoRA, Hu et al. 2022). All other parameters are frozen, but `trained`."""

  rank: int = 0
  """Rank of the adapters. 0: no adapters."""
  alpha: float = 8.0
  """Factor of the adapters, divided by the rank."""
  kernels: tuple[str, ...] = (r"attention/(query|value)/kernel$",)
  """Regular expressions of the paths of the adapted kernels. Of those that match, linear layers and convolutions of one
  pixel are adapted."""
  trained: tuple[str, ...] = ("^class_projection/",)
  """Regular expressions of the paths of parameters that are trained besides the adapters."""
  dora: bool = False
  """Also learn the norm of each column of the kernels (DoRA, Liu et al. 2024)."""

  def __post_init__(self):
    if self.rank < 0:
      raise ValueError(f"adapter.rank is {self.rank}: it must not be negative")
    if self.alpha <= 0:
      raise ValueError(f"adapter.alpha is {self.alpha}: it must be positive")


NO_ADAPTERS = AdapterConfig()


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
  """Pruning and quantisation while a run trains. Such a run begins from trained weights (pretrained.path)."""

  sparsity: float = 0.0
  """Share of the weights of each kernel that are zero at the end, those with the least magnitude (unstructured
  pruning). 0: none. The share rises as 1 - (1 - t)^3 (Zhu and Gupta 2017, equation 1). It makes compressed files
  smaller, and no program faster. The command `python -m mmjax.deploy prune` can remove whole heads and units."""
  sparse_kernels: tuple[str, ...] = (r"(^|/)kernel$",)
  """Regular expressions of the paths of the kernels that are pruned."""
  sparse_from: int = 0
  """Step of the first pruning."""
  sparse_until: int | None = None
  """Step of the last pruning. None: after two thirds of run.steps, so that the rest mends what it cost."""
  sparse_every: int = 10
  """Steps between prunings. A weight that is zero stays zero."""
  quantize: Literal["none", "weights", "all"] = "none"
  """Quantisation-aware training: round weights, or weights and the inputs of linear layers ("all"), as an export with
  --dtype int8 or int8-dynamic does. Gradients pass through the rounding (straight-through)."""

  def __post_init__(self):
    if not 0 <= self.sparsity < 1:
      raise ValueError(f"compression.sparsity is {self.sparsity}: it must lie in [0, 1)")
    if self.sparse_every < 1 or self.sparse_from < 0:
      raise ValueError("compression.sparse_every must be at least 1, and compression.sparse_from at least 0")
    if self.sparse_until is not None and self.sparse_until <= self.sparse_from:
      raise ValueError(
        f"compression.sparse_until is {self.sparse_until}: it must come after sparse_from ({self.sparse_from})"
      )


NO_COMPRESSION = CompressionConfig()


@dataclasses.dataclass(frozen=True)
class NumericsConfig:
  """Reaction to a loss or gradient that is not finite, and to a spike of the loss. Events are lines of events.jsonl."""

  on_not_finite: Literal["stop", "skip", "rollback"] = "stop"
  """stop: end the run. skip: make no update with this batch. rollback: restore the last checkpoint and continue with
  the data after this batch."""
  on_spike: Literal["log", "stop", "skip", "rollback"] = "log"
  """The same for a spike of the loss. log: make the update and log the spike."""
  spike_factor: float = 3.0
  """A spike is a loss more than this many times the median of the last spike_window losses."""
  spike_window: int = 100
  """Number of losses for the median. There are no spikes in the first spike_window steps."""
  max_skips: int = 10
  """Largest number of updates skipped in a row. One more stops the run."""
  max_rollbacks: int = 3
  """Largest number of rollbacks in a run. One more stops the run."""

  def __post_init__(self):
    if self.spike_factor <= 1:
      raise ValueError(f"numerics.spike_factor is {self.spike_factor}: it must be more than 1")
    for name, least in (("spike_window", 2), ("max_skips", 1), ("max_rollbacks", 1)):
      if getattr(self, name) < least:
        raise ValueError(f"numerics.{name} is {getattr(self, name)}: it must be at least {least}")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Steps, batch size, seed, logging and the workdir."""

  workdir: Path = Path("runs/experiment")
  """Folder for all files of the run: configuration, metrics, checkpoints, results and report."""
  steps: int = 1000
  """Optimiser steps."""
  batch_size: int = 256
  """Examples per step, summed over all devices and processes."""
  seed: int = 0
  """Seed of data order, augmentation, initialisation and dropout."""
  resume: bool = True
  """Resume from the newest checkpoint in the workdir. With --run.no-resume, a workdir with a checkpoint is an error."""
  log_every: int = 10
  """Steps between log lines in metrics.jsonl."""
  save_every: int = 500
  """Steps between checkpoints. Checkpoints are also saved after the last step, at evaluations and on Ctrl-C."""
  keep_last: int = 2
  """Number of newest checkpoints to keep. The best one by evaluation.best_metric is kept as well."""
  tensorboard: bool = True
  """Write TensorBoard event files to WORKDIR/tensorboard."""
  wandb_project: str | None = None
  """Weights & Biases project to log to (pip install 'mmjax[wandb]'). None: no logging there."""

  def __post_init__(self):
    for name in ("steps", "batch_size", "log_every", "save_every", "keep_last"):
      if getattr(self, name) < 1:
        raise ValueError(f"run.{name} is {getattr(self, name)}: it must be at least 1")
    if self.seed < 0:
      raise ValueError(f"run.seed is {self.seed}: it must not be negative")


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
  """Published weights to initialise from, instead of random ones."""

  path: str | None = None
  """Folder, file or ORG/NAME in the hub's cache (transformers, open_clip, big_vision, ...). None: random weights. On
  the command line, it also replaces the script's model, tokenizer and image preprocessing by those of the checkpoint.
  """
  into: Literal["", "image", "text"] = ""
  """Tower to initialise, from a single tower or from this tower of a whole model. Empty: the whole model."""
  take: tuple[str, ...] = (".*",)
  """Regular expressions of the parameter paths to load. Other parameters are initialised at random."""
  allow: tuple[str, ...] = ()
  """Settings that may differ from the checkpoint's, such as model.image.num_heads; "model", "tokenizer" and
  "preprocess" keep all of the run's own. Any other difference that changes results is an error."""
  download: bool = False
  """Download a path that is ORG/NAME of the Hugging Face hub, if the local cache does not have it."""
