"""Tiny runs that tests of ensembles put together."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax.data import ClassFolders, ClassLabel, DataConfig, Image
from mmjax.encoders import ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import ClassifierConfig, TwoTowerConfig
from mmjax.models.config import init_params
from mmjax.objectives import Classify, Contrastive
from mmjax.parallel.mesh import make_mesh
from mmjax.run import Run
from tests.tiny import MODEL

TOWER = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2, mlp_dim=8, pool="mean")
SMALL = ClassifierConfig(towers={"image": TOWER}, num_classes=3)
OTHER = ClassifierConfig(towers={"image": dataclasses.replace(TOWER, width=4)}, num_classes=3)
SPACE = TwoTowerConfig(image=MODEL.image, text=MODEL.text, embed_dim=4)
CLASSES = {"label": {"classes": ["a", "b", "c"], "counts": [5, 5, 5]}}
IMAGES = np.random.default_rng(0).standard_normal((5, 8, 8, 3)).astype(np.float32)


@functools.cache
def params(model: Any, seed: int) -> Any:
  """Random parameters, with a head that is not zero."""
  leaves, tree = jax.tree.flatten(jax.jit(lambda key: init_params(model.build(), key))(jax.random.key(seed)))
  rng = np.random.default_rng(seed)
  return jax.tree.unflatten(tree, [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves])


def classifier(seed: int, workdir: Path, model: Any = SMALL) -> Run:
  """A classifier that was never trained."""
  term = Classify() if isinstance(model, ClassifierConfig) else Contrastive()
  experiment = Experiment(
    data=DataConfig(source=ClassFolders(path="nowhere"), columns={"image": Image(), "label": ClassLabel()}),
    model=model,
    objectives=(term,),
    run=RunConfig(workdir=workdir),
  )
  mesh = make_mesh(experiment.parallel)
  return Run(experiment, workdir, model.build(), params(model, seed), None, mesh, 3, CLASSES)
