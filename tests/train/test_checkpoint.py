import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import CheckpointError
from mmjax.parallel.mesh import put_batch
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.manifest import MANIFEST
from mmjax.train.state import TrainState
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
  checkpoints.save(1, state, {"step": 1})
  state = stepped(training, state, 1)  # donates the buffers that are being saved
  restored = checkpoints.restore(training.shapes, training.shardings)
  checkpoints.close()
  assert restored.data == {"step": 1} and int(restored.state.step) == 1
  equal(stepped(training, restored.state, 1), state)


def test_a_checkpoint_opens_on_another_mesh(tmp_path, training):
  other = training_on(8, experiment(parallel=dict(fsdp=2, model=2)))
  checkpoints = Checkpoints(tmp_path)
  state = stepped(training, training.initial_state(), 0)
  checkpoints.save(1, state, {})
  restored = checkpoints.restore(other.shapes, other.shardings).state
  checkpoints.close()
  equal(restored, state)
  assert restored.params["image_projection"]["kernel"].sharding.mesh.size == 8


def test_the_newest_and_the_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_last=2)
  for step, accuracy in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
    checkpoints.save(step, small(0), {})
    checkpoints.score(step, accuracy)
  found = lambda: sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal())
  checkpoints.wait()
  assert found() == [2, 4, 5]
  checkpoints.score(4, 0.95)  # known after the last save
  checkpoints.prune()
  checkpoints.close()
  assert found() == [4, 5]


def test_a_checkpoint_made_when_a_run_was_stopped_takes_no_other_ones_place(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep_last=2, planned=lambda step: step % 3 == 0)
  kept = []
  for step in (1, 3, 4, 6, 8, 9):
    checkpoints.save(step, small(0), {})
    checkpoints.wait()
    kept.append(sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()))
  checkpoints.close()
  assert kept == [[1], [1, 3], [3, 4], [3, 6], [3, 6, 8], [6, 9]]


def test_a_checkpoint_of_another_model_is_refused_and_the_parameter_named(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, training.initial_state(), {})
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
  checkpoints.save(1, state, {})
  lion = training_on(1, experiment(optimizer=dict(algorithm="lion", ema_decay=0.0)))
  params, step = checkpoints.restore_params(lion.shapes.params, lion.shardings.params)
  latest, _ = checkpoints.restore_params(lion.shapes.params, lion.shardings.params, average=False)
  checkpoints.close()
  assert step == 1
  equal(params, state.ema)
  equal(latest, state.params)


def test_parameters_of_another_model_are_refused(tmp_path, training):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, training.initial_state(), {})
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


def small(value):
  """A state with next to nothing in it."""
  leaf = {"kernel": jnp.arange(4096.0).reshape(64, 64) + value}
  opt_state, rng = {"mu": jax.tree.map(jnp.negative, leaf)}, jnp.zeros(2, jnp.uint32)
  return TrainState(step=jnp.int32(value), params=leaf, opt_state=opt_state, ema=jax.tree.map(jnp.sin, leaf), rng=rng)


SHAPES = jax.eval_shape(lambda: small(0))
SHARDINGS = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), SHAPES)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
  folder = tmp_path_factory.mktemp("three")
  checkpoints = Checkpoints(folder)
  for step in (1, 2, 3):
    checkpoints.save(step, small(step), {"step": step})
  checkpoints.close()
  return folder


@pytest.fixture
def three(original, tmp_path):
  """A folder with the checkpoints of steps 1, 2 and 3, which hold small(STEP)."""
  return shutil.copytree(original, tmp_path / "three")


def largest_file(folder):
  return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_bit(folder):
  path = largest_file(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  return path


def truncate(folder):
  path = largest_file(folder)
  path.write_bytes(path.read_bytes()[:-1])
  return path


def remove(folder):
  path = largest_file(folder)
  path.unlink()
  return path


def lose_the_manifest(folder):
  (folder / MANIFEST).unlink()
  return folder / MANIFEST


def garble_the_manifest(folder):
  (folder / MANIFEST).write_text("[1")
  return folder / MANIFEST


def copy_half(folder):
  for path in folder.rglob("*"):
    if path.is_file() and path.name != "_CHECKPOINT_METADATA":
      path.unlink()
  return folder / MANIFEST


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove, lose_the_manifest, garble_the_manifest, copy_half])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(three, damage, caplog):
  victim = damage(three / "3")
  reader = Checkpoints(three, read_only=True)
  params, step = reader.restore_params(SHAPES.params, SHARDINGS.params)
  reader.close()
  assert step == 2 and (three / "3").exists()  # whoever only reads moves nothing
  equal(params, small(2).ema)
  checkpoints = Checkpoints(three)
  restored = checkpoints.restore(SHAPES, SHARDINGS)
  assert restored.data == {"step": 2}
  equal(restored.state, small(2))
  for message in caplog.messages:
    assert f"{three / '3'} is damaged" in message and victim.name in message and "Step 2 is used" in message
  assert len(caplog.messages) == 2 and (three / "3.damaged").exists()
  checkpoints.save(3, restored.state, {})  # the place is free again
  checkpoints.close()
  assert Checkpoints(three, read_only=True).latest_step == 3


def test_without_an_intact_checkpoint_the_first_fault_of_each_is_told_and_nothing_is_moved(three):
  faults = [flip_a_bit(three / "1"), truncate(three / "2"), remove(three / "3")]
  checkpoints = Checkpoints(three)
  for _ in range(2):  # a scheduler that starts it again must not begin at step 0
    with pytest.raises(CheckpointError, match="no checkpoint is intact") as told:
      checkpoints.restore(SHAPES, SHARDINGS)
    assert all(path.name in str(told.value) for path in faults)
  with pytest.raises(CheckpointError, match="no checkpoint is intact.*checksum differs"):
    checkpoints.restore(SHAPES, SHARDINGS, step=1)
  checkpoints.close()


def test_checkpoints_of_a_version_without_checksums_are_read(three, caplog):
  for step in (1, 2, 3):
    lose_the_manifest(three / str(step))
  checkpoints = Checkpoints(three)
  equal(checkpoints.restore(SHAPES, SHARDINGS).state, small(3))
  checkpoints.close()
  assert "unverified" in caplog.text


def test_the_manifest_covers_every_file_but_what_orbax_adds_while_it_commits(three):
  listed = json.loads((three / "3" / MANIFEST).read_text())["files"]
  found = {path.relative_to(three / "3").as_posix() for path in (three / "3").rglob("*") if path.is_file()}
  unlisted = {name for name in found - set(listed) if not name.endswith(("_CHECKPOINT_METADATA", "commit_success.txt"))}
  assert unlisted == {MANIFEST} and set(listed) < found


def test_a_full_disk_leaves_the_last_good_checkpoint_and_says_so(three):
  checkpoints = Checkpoints(three)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may grow beyond this
  try:
    checkpoints.save(4, small(4), {})
    with pytest.raises(CheckpointError, match=r"step 4 could not be written.*File too large.*of step 3, is untouched"):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert not list(three.glob("4*"))
  restored = checkpoints.restore(SHAPES, SHARDINGS).state
  equal(restored, small(3))
  checkpoints.save(4, restored, {})  # there is room again
  checkpoints.close()
  assert Checkpoints(three, read_only=True).latest_step == 4
