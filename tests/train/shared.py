"""A step that is compiled once for all tests of training."""

import dataclasses
import functools

import jax

from mmjax.data import DataConfig
from mmjax.evaluators import EvaluationConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.train.setup import Training, prepare


@functools.cache
def _prepared(experiment: Experiment, devices: int) -> Training:
  del devices
  return prepare(experiment)


def prepared(experiment: Experiment) -> Training:
  """`prepare`, compiled once for all runs that differ only in what the step does not depend on."""
  run = RunConfig(steps=experiment.run.steps, batch_size=experiment.run.batch_size, seed=experiment.run.seed)
  numerics = dataclasses.replace(experiment.numerics, on_not_finite="stop", max_skips=10, max_rollbacks=3)
  if numerics.on_spike != "log":
    numerics = dataclasses.replace(numerics, on_spike="skip")  # the same to the step
  data = DataConfig(streams=experiment.data.streams)
  key = dataclasses.replace(experiment, data=data, evaluation=EvaluationConfig(), run=run, numerics=numerics)
  return dataclasses.replace(_prepared(key, len(jax.devices())), experiment=experiment)
