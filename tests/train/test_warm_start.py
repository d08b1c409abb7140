"""A run that begins from published weights: what is taken is theirs, in its shards; the rest is as without them."""

import dataclasses

import numpy as np
import pytest

from mmjax import interop
from mmjax.errors import UserError
from mmjax.experiment import PretrainedConfig
from mmjax.interop.shapes import flat_shapes, flatten, unflatten
from mmjax.train.setup import prepare
from tests import tiny


def test_one_tower_is_read_and_the_other_begins_at_random(tmp_path):
  config = dataclasses.replace(tiny.MODEL.text, depth=1)
  rng = np.random.default_rng(0)
  theirs = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in flat_shapes(config).items()}
  interop.save(config.build(), unflatten(theirs), tmp_path, format="mmjax")
  experiment = tiny.experiment(parallel=dict(fsdp=8))
  begun = dataclasses.replace(experiment, pretrained=PretrainedConfig(str(tmp_path), "text", ("/transformer/",)))
  training = prepare(begun)
  state, fresh = training.initial_state(), prepare(experiment).initial_state()
  got, expected = flatten(state.params), flatten(fresh.params)
  taken = {f"text/{name}" for name in theirs if name.startswith("transformer/")}
  assert taken and set(got) == set(expected)
  for name, leaf in got.items():
    wanted = theirs[name.removeprefix("text/")] if name in taken else expected[name]
    np.testing.assert_array_equal(leaf, wanted, err_msg=name)
    np.testing.assert_array_equal(flatten(state.ema)[name], leaf)
    assert leaf.sharding == flatten(training.shardings.params)[name], name
  kernel = got["text/transformer/block_0/mlp/up/kernel"]
  assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 64)}


def test_weights_that_do_not_fit_are_named(tmp_path):
  config = dataclasses.replace(tiny.MODEL.text, width=8, num_heads=2)
  params = unflatten({name: np.zeros(shape, np.float32) for name, shape in flat_shapes(config).items()})
  interop.save(config.build(), params, tmp_path, format="mmjax")
  for pretrained, said in (
    (PretrainedConfig(str(tmp_path), "text"), "model.text.width is 16, the checkpoint's is 8"),
    (PretrainedConfig(str(tmp_path), "text", allow=("model.text.width",)), "the model has"),
    (PretrainedConfig(str(tmp_path), "image", ("token",)), "none of its parameters"),
    (PretrainedConfig(str(tmp_path / "no"), "text"), "does not exist"),
  ):
    experiment = dataclasses.replace(tiny.EXPERIMENT, pretrained=pretrained)
    with pytest.raises(UserError, match=said):
      prepare(
        dataclasses.replace(experiment, parallel=dataclasses.replace(experiment.parallel, fsdp=8))
      ).initial_state()
