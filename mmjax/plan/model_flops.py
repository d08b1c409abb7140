"""FLOPs of a step by the model's mathematics, without recomputation."""

import dataclasses
from typing import Any

import jax

from mmjax.data.batching import row_shapes
from mmjax.experiment import Experiment
from mmjax.models.config import image_size
from mmjax.models.counting import training_flops
from mmjax.models.flops import two_tower_flops
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.objectives.terms.contrastive import Contrastive
from mmjax.parallel.mesh import ParallelConfig
from mmjax.train.loss import make_loss
from mmjax.train.setup import Training, prepare
from mmjax.train.step import example_keys


def model_flops(experiment: Experiment) -> int:
  """FLOPs of a step over all devices, without recomputation. Those of all data streams are added.

  Two-tower models that train only contrastive objectives have a formula (mmjax.models.flops): one tower per view, and
  one product of embeddings per objective. For everything else, the loss is traced and its matrix products are counted
  (mmjax.models.counting).
  """
  return sum(_of_stream(each) for each in experiment.by_stream().values())


def _of_stream(experiment: Experiment) -> int:
  contrast = all(type(objective) is Contrastive for objective in experiment.objectives)
  if type(experiment.model) is TwoTowerConfig and contrast:
    return _two_tower_flops(experiment, experiment.model)
  return _counted(experiment)


def _two_tower_flops(experiment: Experiment, model: TwoTowerConfig) -> int:
  size, embed = experiment.run.batch_size, model.embed_dim
  pairs = experiment.objectives
  views = {name for objective in pairs for name in objective.needs if name.startswith(("image", "text"))}
  images, texts = (sum(name.startswith(kind) for name in views) for kind in ("image", "text"))
  image = model.image.flops() + 2 * embed * model.image.pooled_width
  text = model.text.flops() + 2 * embed * model.text.pooled_width
  more = (images - 1) * image + (texts - 1) * text + (len(pairs) - 1) * 2 * size * embed
  return size * (two_tower_flops(model, batch_size=size) + 3 * more)


def _counted(experiment: Experiment) -> int:
  """FLOPs of the loss, traced for one device without microbatches."""
  plain = dataclasses.replace(experiment, parallel=ParallelConfig(placement=experiment.parallel.placement))
  training: Training = prepare(plain, devices=jax.local_devices(backend="cpu")[:1])
  teachers = training.step.teachers
  loss = make_loss(training.model, plain.objectives, mesh=training.mesh, microbatches=1, teachers=teachers.modules)
  shapes = row_shapes(plain.data, image_size(plain.model)).items()
  batch = {name: jax.ShapeDtypeStruct((plain.run.batch_size, *shape), dtype) for name, (shape, dtype) in shapes}

  def forward(params: Any, state: Any, batch: Any, frozen: Any) -> Any:
    return loss(params, state, batch, example_keys(state.rng, state.step, batch["index"]), frozen)[0]

  return training_flops(forward, training.shapes.params, training.shapes, batch, dict(teachers.shapes))
