import jax
import numpy as np
import pytest

from mmjax.errors import CheckpointError
from mmjax.parallel.mesh import put_batch
from mmjax.train.checkpoint import Checkpoints
from tests.tiny import experiment, host_batch, training_on


@pytest.fixture(scope="module")
def training():
  return training_on(1, experiment())


def stepped(training, state, seed):
  return training.step(state, put_batch(host_batch(seed=seed), training.mesh))[0]


def equal(one, two):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(two))


def test_what_is_restored_continues_to_the_bit_and_saving_does_not_wait_for_the_disk(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  state = stepped(training, training.initial_state(), 0)
  checkpoints.save(1, state, {"step": 1}, {})
  state = stepped(training, state, 1)  # donates the buffers that are being saved
  restored = checkpoints.restore(training.shapes, training.shardings)
  checkpoints.close()
  assert restored.data == {"step": 1} and int(restored.state.step) == 1
  equal(stepped(training, restored.state, 1), state)


def test_a_checkpoint_opens_on_another_mesh(tmp_path, training):
  other = training_on(8, experiment(parallel=dict(fsdp=2, model=2)))
  checkpoints = Checkpoints(tmp_path)
  state = stepped(training, training.initial_state(), 0)
  checkpoints.save(1, state, {}, {})
  restored = checkpoints.restore(other.shapes, other.shardings).state
  checkpoints.close()
  equal(restored, state)
  assert restored.params["image_projection"]["kernel"].sharding.mesh.size == 8


def test_the_newest_and_the_best_are_kept(tmp_path, training):
  checkpoints = Checkpoints(tmp_path, keep_last=2, best_metric="acc1")
  state = training.initial_state()
  for step, accuracy in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
    checkpoints.save(step, state, {}, {"acc1": accuracy})
  checkpoints.close()
  assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()) == [2, 4, 5]


def test_a_checkpoint_of_another_model_is_refused_and_the_parameter_named(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, training.initial_state(), {}, {})
  wider = training_on(1, experiment(model=dict(embed_dim=12)))
  with pytest.raises(CheckpointError, match=r"another model: '.*image_projection/kernel' has shape \(16, 8\) there"):
    checkpoints.restore(wider.shapes, wider.shardings)
  lion = training_on(1, experiment(optimizer=dict(algorithm="lion")))
  with pytest.raises(CheckpointError, match=r"another model or optimiser: 'opt_state/.*/nu/.*' has no place here"):
    checkpoints.restore(lion.shapes, lion.shardings)
  checkpoints.close()


def test_parameters_are_read_whatever_the_optimiser_was(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  state = stepped(training, training.initial_state(), 0)
  checkpoints.save(1, state, {}, {})
  lion = training_on(1, experiment(optimizer=dict(algorithm="lion", ema_decay=0.0)))
  params, step = checkpoints.restore_params(lion.shapes.params, lion.shardings.params)
  checkpoints.close()
  assert step == 1
  equal(params, state.ema)


def test_parameters_of_another_model_are_refused(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, training.initial_state(), {}, {})
  wider = training_on(1, experiment(model=dict(embed_dim=12)))
  with pytest.raises(CheckpointError, match=r"another model: 'ema/image_projection/kernel' has shape \(16, 8\) there"):
    checkpoints.restore_params(wider.shapes.params, wider.shardings.params)
  checkpoints.close()


def test_reading_creates_nothing(tmp_path, training):
  reader = Checkpoints(tmp_path / "checkpoints", read_only=True)
  with pytest.raises(CheckpointError, match="holds no checkpoint"):
    reader.restore_params(training.shapes.params, training.shardings.params)
  reader.close()
  assert not (tmp_path / "checkpoints").exists()


def test_an_empty_folder_is_said_to_be_empty(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(CheckpointError, match="holds no checkpoint"):
    checkpoints.restore(training.shapes, training.shardings)
  checkpoints.close()
