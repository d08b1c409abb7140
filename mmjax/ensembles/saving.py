"""Saves a run that was made from others, so that load_run, evaluation, report and export read it like a trained one."""

import jax
import jax.numpy as jnp

from mmjax.data.columns.fitting import save_columns
from mmjax.errors import CheckpointError
from mmjax.interop.run_image import write_image
from mmjax.run import CHECKPOINTS, COLUMNS, CONFIG, PREPROCESS, TOKENIZER, Run
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.loop import make_workdir
from mmjax.train.provenance import write_config
from mmjax.train.state import TrainState


def save_run(run: Run) -> Run:
  """Write a run into its workdir. Training cannot go on from it, since it has no state of an optimiser.

  Args:
    run: a run of mmjax.ensembles.
  Returns: the run.
  Raises: CheckpointError: the workdir has checkpoints. UserError: it cannot be written.
  """
  workdir = make_workdir(run.workdir)
  checkpoints = Checkpoints(workdir / CHECKPOINTS)
  if checkpoints.latest_step is not None:
    checkpoints.close()
    raise CheckpointError(f"{workdir} holds a run already: choose another workdir, or delete this one")
  state = TrainState(
    step=jnp.int32(run.step), params=run.params, opt_state={}, ema=None, rng=jax.random.key_data(jax.random.key(0))
  )
  checkpoints.save(run.step, state, {})
  checkpoints.close()
  if jax.process_index() == 0:
    write_config(run.experiment, workdir / CONFIG)
    save_columns(run.fitted, workdir / COLUMNS)
    if run.tokenizer is not None:
      run.tokenizer.save(workdir / TOKENIZER)
    if run.image is not None:
      write_image(run.image, workdir / PREPROCESS)
  return run
