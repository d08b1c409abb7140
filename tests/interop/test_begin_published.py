"""What a run takes from a published checkpoint gives the ids, pixels and embeddings of its own library."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.interop.run_tokenizer import load_saved
from mmjax.objectives import Contrastive, Sigmoid
from mmjax.train.adopt import adopted, check_agreement, run_image, run_tokenizer
from mmjax.train.loop import fitted
from mmjax.train.setup import check_needs
from tests.interop.open_clip_folders import written
from tests.interop.references import clip_vocabulary, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")

TEXTS = ["a photo of a cat", "", "Two DOGS, running!", "naïve café 東京 💕", "word " * 200]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 31, 3)).astype(np.uint8))
TOWER = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4)
TEXT = TOWER | dict(vocab_size=49408, max_position_embeddings=77, eos_token_id=49407, bos_token_id=49406)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  """A CLIPModel with CLIP's own vocabulary, whose padding is the end token."""
  folder = tmp_path_factory.mktemp("clip")
  config = transformers.CLIPConfig(
    text_config=TEXT, vision_config=TOWER | dict(image_size=16, patch_size=8), projection_dim=8
  )
  transformers.CLIPModel(config).save_pretrained(folder)
  vocabulary, merges = clip_vocabulary()
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
  tokenizer = transformers.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
  tokenizer.model_max_length = 77
  tokenizer.save_pretrained(folder)
  sizes = dict(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
  transformers.CLIPImageProcessor(**sizes).save_pretrained(folder)
  return folder


def test_ids_and_pixels_are_those_of_transformers(clip):
  experiment = adopted(Experiment(pretrained=PretrainedConfig(str(clip))))
  tokenizer, image = run_tokenizer(experiment.data, []), run_image(experiment.data, 16)
  theirs = transformers.AutoTokenizer.from_pretrained(clip)
  ids = theirs(TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="np").input_ids
  np.testing.assert_array_equal(tokenizer(TEXTS), ids)
  assert tokenizer.pad_id == tokenizer.eos_id == theirs.pad_token_id == 49407
  pixels = transformers.CLIPImageProcessor.from_pretrained(clip)(PICTURE, return_tensors="np").pixel_values
  assert np.abs(image(PICTURE) - pixels[0].transpose(1, 2, 0)).max() * 0.27 <= 1.01 / 255
  run = fitted(experiment, tokenizer, num_records={"": 4})
  check_needs(run, None, tokenizer)
  check_agreement(run, tokenizer, image)
  assert (run.model.text.vocab_size, run.model.text.eos_id) == (49408, 49407)


def test_a_tokenizer_named_token_by_token_is_compared(clip):
  """The seven flags of before still work, and without the begin token they are refused."""
  experiment = adopted(Experiment(pretrained=PretrainedConfig(str(clip))))
  named = dataclasses.replace(experiment.data.tokenizer, path=str(clip / "tokenizer.json"))
  for begin, fails in ((named.bos_token, False), (None, True)):
    data = dataclasses.replace(experiment.data, tokenizer=dataclasses.replace(named, bos_token=begin))
    run = dataclasses.replace(experiment, data=data)
    tokenizer = run_tokenizer(data, [])
    if fails:
      with pytest.raises(Exception, match=r"tokenizer is .*49406.*--pretrained.allow tokenizer"):
        check_agreement(run, tokenizer, None)
    else:
      check_agreement(run, tokenizer, None)


def test_siglip_brings_its_sentencepiece_model(tmp_path):
  """No begin token, padding by the end token, and a clean-up of texts: kept in the folder of the run."""
  sentencepiece = reference("sentencepiece")
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["a photo of a cat", "two dogs running", "word naïve café"] * 3),
    model_prefix=str(tmp_path / "spiece"),
    vocab_size=60,
    hard_vocab_limit=False,
    minloglevel=2,
    **dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
  )
  theirs = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"))
  theirs.save_pretrained(tmp_path)
  text = TOWER | dict(vocab_size=len(theirs), max_position_embeddings=12, projection_size=16)
  config = transformers.SiglipConfig(text_config=text, vision_config=TOWER | dict(image_size=16, patch_size=8))
  transformers.SiglipModel(config).save_pretrained(tmp_path)
  processor = transformers.SiglipImageProcessor(size={"height": 16, "width": 16})
  processor.save_pretrained(tmp_path)
  experiment = adopted(Experiment(pretrained=PretrainedConfig(str(tmp_path))))
  tokenizer, image = run_tokenizer(experiment.data, []), run_image(experiment.data, 16)
  tokenizer.save(tmp_path / "saved")
  ids = theirs(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="np").input_ids
  for one in (tokenizer, load_saved(tmp_path / "saved")):
    np.testing.assert_array_equal(one(TEXTS), ids)
    assert (one.pad_id, one.eos_id, one.begin_id) == (1, 1, None)
  pixels = processor(PICTURE, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
  assert np.abs(image(PICTURE) - pixels).max() * 0.5 <= 1.01 / 255
  run = fitted(experiment, tokenizer, num_records={"": 4})
  check_needs(dataclasses.replace(run, objectives=(Contrastive(loss=Sigmoid()),)), None, tokenizer)
  check_agreement(run, tokenizer, image)


def test_open_clip_brings_its_clean_up_and_its_padding(clip, tmp_path):
  """open_clip's own tokenizer repairs texts and pads with 0; transformers' pads with the end token."""
  reference("open_clip")
  import open_clip

  tower = dict(width=16, layers=1)
  vision = tower | dict(image_size=16, patch_size=8, head_width=8)
  _, transform = written(tmp_path / "model", dict(vision_cfg=vision, text_cfg=tower | dict(heads=2)))
  for name in ("tokenizer.json", "tokenizer_config.json"):
    (tmp_path / "model" / name).write_bytes((clip / name).read_bytes())
  experiment = adopted(Experiment(pretrained=PretrainedConfig(str(tmp_path / "model"))))
  tokenizer, image = run_tokenizer(experiment.data, []), run_image(experiment.data, 16)
  tokenizer.save(tmp_path / "saved")
  texts = [*TEXTS, "fish &amp; chips", "schÃ¶n"]
  ids = open_clip.get_tokenizer("ViT-B-32")(texts).numpy()
  for one in (tokenizer, load_saved(tmp_path / "saved")):
    np.testing.assert_array_equal(one(texts), ids)
  assert (tokenizer.pad_id, tokenizer.eos_id) == (0, 49407)
  assert np.abs(image(PICTURE) - transform(PICTURE).numpy().transpose(1, 2, 0)).max() < 1e-5
  check_agreement(fitted(experiment, tokenizer, num_records={"": 4}), tokenizer, image)
