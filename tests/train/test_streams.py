"""Several data streams in one run, each with its source, columns and share; terms name the stream that they read."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.catalogue import KINDS
from mmjax.choosing import chosen
from mmjax.cli import Call, main, parse
from mmjax.data import Caption, DataConfig, DataError, Emoji, Source, Stream, TokenizerConfig, make_source
from mmjax.data.streams import Streams
from mmjax.encoders.bert import bert_config
from mmjax.encoders.vit import ViTConfig
from mmjax.errors import ConfigError
from mmjax.evaluate import flatten
from mmjax.evaluate.evaluator import measured
from mmjax.evaluate.suite import measure
from mmjax.evaluators import EvaluationConfig, HiddenWords
from mmjax.experiment import Experiment, RunConfig, from_json, to_json
from mmjax.loading import load_run
from mmjax.models.flava import FlavaConfig
from mmjax.objectives import Contrastive, MaskedWords, Softmax, Triplet
from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.plan.build import batch_arguments, compile_step
from mmjax.plan.model_flops import model_flops
from mmjax.report import write_report
from mmjax.settings import OptimizerConfig
from mmjax.train.loop import make_loaders, streams_tokenizer, train
from mmjax.train.loss import make_loss
from mmjax.train.setup import prepare
from mmjax.train.step import batch_keys
from tests.tiny import EXPERIMENT, MODEL, host_batch

SIZE = dict(width=16, depth=1, num_heads=2)


@pytest.fixture(scope="module", autouse=True)
def quick_compilations():
  """Seconds instead of minutes: these steps are small, and run a few times."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@dataclasses.dataclass(frozen=True)
class Lines(Source):
  """Texts of two words, without images."""

  lines: int = 30
  first: str = "a"

  @property
  def columns(self):
    return {"text": Caption()}

  def open(self, split, reading):
    words = [f"{self.first}{n % 7} b{n % 5}" for n in range(self.lines)]
    return [{"id": text, "concept": n, "captions": {"name": [text]}} for n, text in enumerate(words)]


EVERYTHING = (*KINDS, Lines)


def streaming(workdir=Path("unused"), **run) -> Experiment:
  """Contrast on emoji, and hidden words in lines of text, by one model."""
  return Experiment(
    data=DataConfig(
      source=Emoji(limit=40),
      streams={"words": Stream(source=Lines(), share=0.25)},
      tokenizer=TokenizerConfig(vocab_size=384, max_length=8, cls_token="<cls>", mask_token="<mask>"),
    ),
    model=FlavaConfig(
      image=ViTConfig(**SIZE, image_size=16, patch_size=8, pool="cls"),
      text=bert_config(**SIZE, max_length=8, norm="pre", input_norm=False, token_types=0, tanh_pool=False),
      fusion_depth=1,
      embed_dim=8,
    ),
    objectives=(Contrastive(), MaskedWords(image=False, rate=0.4, stream="words")),
    optimizer=OptimizerConfig(warmup_steps=0),
    evaluation=EvaluationConfig(evaluators={"hidden_words": HiddenWords()}),
    run=RunConfig(**{"workdir": workdir, "steps": 4, "batch_size": 32, "log_every": 1, "tensorboard": False} | run),
  )


# The terms of both streams without randomness, on the towers of the other tests.
STILL = dataclasses.replace(MODEL, image=dataclasses.replace(MODEL.image, patch_dropout=0.0))
TWO = dataclasses.replace(
  EXPERIMENT,
  data=dataclasses.replace(EXPERIMENT.data, streams={"more": Stream(share=0.5)}),
  model=STILL,
  objectives=(Contrastive(), Contrastive(loss=Softmax(), weight=0.5, stream="more")),
  run=dataclasses.replace(EXPERIMENT.run, batch_size=32),
)


@functools.cache
def prepared(experiment, devices=1, microbatches=1):
  parallel = ParallelConfig(microbatches=microbatches)
  return prepare(dataclasses.replace(experiment, parallel=parallel), devices=jax.devices()[:devices])


def both(seed=0):
  return {"": host_batch(16, seed), "more": host_batch(16, seed + 1)}


def test_the_loss_of_a_step_is_the_sum_over_its_streams_and_so_is_the_gradient():
  training, batch = prepared(TWO), put_batch(both(), prepared(TWO).mesh)
  state = training.initial_state()

  def loss(terms):
    fn = make_loss(training.model, terms, mesh=training.mesh, microbatches=1)
    return lambda params, rows: fn(params, state, rows, batch_keys(state.rng, state.step, rows), {})[0]

  whole = jax.grad(loss(TWO.objectives))(state.params, batch)
  one = jax.grad(loss((Contrastive(),)))(state.params, batch[""])
  two = jax.grad(loss((Contrastive(weight=0.5),)))(state.params, batch["more"])
  jax.tree.map(lambda w, a, b: np.testing.assert_allclose(w, a + b, rtol=1e-5, atol=1e-7), whole, one, two)
  params = state.params
  parts = [loss((Contrastive(),))(params, batch[""]), loss((Contrastive(),))(params, batch["more"])]
  _, metrics = training.step(state, batch)
  np.testing.assert_allclose(metrics["softmax_image_text"], parts[0], rtol=1e-6)
  np.testing.assert_allclose(metrics["more_softmax_image_text"], parts[1], rtol=1e-6)
  np.testing.assert_allclose(metrics["loss"], parts[0] + 0.5 * parts[1], rtol=1e-6)


def test_a_step_does_not_depend_on_the_devices_or_microbatches():
  seen = []
  for devices, microbatches in ((1, 1), (8, 1), (1, 2)):
    training = prepared(TWO, devices, microbatches)
    _, metrics = training.step(training.initial_state(), put_batch(both(), training.mesh))
    seen.append((float(metrics["loss"]), float(metrics["grad_norm"])))
  np.testing.assert_allclose(seen[1:], [seen[0]] * 2, rtol=2e-6)


def test_rows_of_two_streams_have_their_own_randomness_and_those_of_one_have_what_they_had():
  rows, rng = {"index": jnp.arange(4)}, jax.random.key_data(jax.random.key(0))
  alone = jax.random.key_data(batch_keys(rng, jnp.int32(3), rows))
  keys = {name: jax.random.key_data(each) for name, each in batch_keys(rng, 3, {"": rows, "more": rows}).items()}
  np.testing.assert_array_equal(keys[""], alone)
  assert not np.any(np.all(keys["more"] == alone, axis=-1))


def test_a_run_with_streams_trains_stops_resumes_is_evaluated_and_loaded(tmp_path):
  data = dataclasses.replace(streaming().data, dir=str(tmp_path / "data"))
  experiment = dataclasses.replace(streaming(tmp_path), data=data)
  first = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, steps=2))
  train(first, kinds=(Lines,))
  run = train(experiment, kinds=(Lines,)).run
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert {"softmax_image_text", "words_masked_words_text", "words_masked_words_text_accuracy"} <= set(lines[0])
  assert [line["step"] for line in lines] == [1, 2, 3, 4] and run.step == 4
  assert all(
    line["loss"] == pytest.approx(line["softmax_image_text"] + line["words_masked_words_text"]) for line in lines
  )
  found = load_run(tmp_path, kinds=(Lines,))
  jax.tree.map(np.testing.assert_array_equal, found.params, run.params)
  names = list(flatten(measure(found)))
  assert sorted(names) == sorted(measured(found.experiment))
  assert names[0] == "words_lines_masked_text/masked_word_accuracy"
  assert "stream words" in write_report(tmp_path, found).read_text()


def test_a_run_with_streams_resumes_to_the_bit(tmp_path):
  experiment = dataclasses.replace(streaming(), data=dataclasses.replace(streaming().data, dir=str(tmp_path)))
  sources = {name: make_source(each.data, "train") for name, each in experiment.by_stream().items()}
  tokenizer = streams_tokenizer(experiment, sources)
  one, two = (make_loaders(experiment, sources, tokenizer, {}) for _ in range(2))
  assert isinstance(one, Streams) and tokenizer.vocab_size == 384
  batches = [next(one) for _ in range(3)]
  assert {name: len(rows["index"]) for name, rows in batches[0].items()} == {"": 24, "words": 8}
  assert set(batches[0]["words"]) == {"index", "concept", "text"}
  next(two)
  state = json.loads(json.dumps(two.get_state()))
  two.close()
  again = make_loaders(experiment, sources, tokenizer, {})
  again.set_state(state)
  jax.tree.map(np.testing.assert_array_equal, [next(again), next(again)], batches[1:])
  with pytest.raises(DataError, match=r"has the streams \['', 'lines'\], this run has \['', 'words'\]"):
    again.set_state({"": state[""], "lines": state["words"]})
  for loader in (one, again):
    loader.close()


def test_the_command_line_and_json_know_streams():
  experiment, rest = chosen(streaming(), ["--data.streams.words.source", "scenes"], EVERYTHING)
  assert type(experiment.data.streams["words"].source).__name__ == "Scenes" and not rest
  assert from_json(json.loads(json.dumps(to_json(streaming()))), kinds=(Lines,)) == streaming()
  old = to_json(EXPERIMENT)
  del old["data"]["streams"], old["objectives"][0]["stream"]
  assert from_json(old) == EXPERIMENT


def test_plan_compiles_the_rows_of_every_stream():
  shapes = batch_arguments(prepared(TWO))
  assert {name: rows["index"].shape for name, rows in shapes.items()} == {"": (16,), "more": (16,)}
  facts = compile_step(dataclasses.replace(TWO, parallel=ParallelConfig()), jax.devices()[:1], lambda phase: None)
  assert facts.flops > 0 and not facts.complaint
  assert facts.batch_bytes == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
  alone = dataclasses.replace(TWO, data=EXPERIMENT.data, objectives=(Contrastive(),))
  half = dataclasses.replace(alone, run=dataclasses.replace(alone.run, batch_size=16))
  assert model_flops(TWO) == 2 * model_flops(half)


@pytest.mark.parametrize(
  "streams, terms, said",
  [
    ({"words": 0.5}, ("", "word"), "reads the stream 'word', .* there are: words. Did you mean 'words'"),
    ({"words": 0.25, "b": 0.25}, ("", "b"), r"reads the stream 'words' of data.streams \(words, b\): add .*'words'"),
    ({"words": 0.5}, ("words",), "no objective reads the rows of data.source: .* data.streams has words"),
    ({"words": 0.3}, ("", "words"), "batch_size=16 gives 11.2 rows to data.source with the shares words 0.3"),
    ({"a": 0.5, "b": 0.5}, ("", "a", "b"), "gives 0 rows to data.source"),
    ({}, ("words",), "data.streams does not have; there are: none"),
  ],
)
def test_streams_and_terms_that_do_not_fit_are_named(streams, terms, said, capsys):
  data = dataclasses.replace(EXPERIMENT.data, streams={name: Stream(share=share) for name, share in streams.items()})
  objectives = tuple(Contrastive(stream=name) for name in terms)
  unfit = dataclasses.replace(EXPERIMENT, data=data, objectives=objectives)
  with pytest.raises(ConfigError, match=said):
    train(unfit)
  with pytest.raises(SystemExit) as ended:  # a sentence, and no traceback
    main(unfit, arguments=["train"])
  assert ended.value.code == 2 and re.search(said, " ".join(capsys.readouterr().err.split()))


def test_a_command_line_may_name_a_stream_after_its_term_was_chosen():
  """The value in between has a stream that no term reads."""
  parsed = parse("train", Call(TWO, "--objectives contrastive sogclr --objectives.1.stream more".split()))
  assert [type(term).__name__ + term.stream for term in parsed.objectives] == ["Contrastive", "Sogclrmore"]


def test_a_stream_of_the_command_line_is_one_of_the_script():
  for experiment, said in (
    (TWO, "has no 'mor'; there are: more. Did you mean 'more'?"),
    (EXPERIMENT, "there are: none"),
  ):
    with pytest.raises(ConfigError, match=said):
      chosen(experiment, ["--data.streams.mor.share", ".3"], KINDS)


def test_a_share_is_a_share():
  with pytest.raises(ValueError, match=r"the share of a stream is 1.0: it must lie in \(0, 1\)"):
    Stream(share=1.0)


def test_rows_of_a_stream_that_the_devices_do_not_divide_are_named():
  uneven = dataclasses.replace(TWO, run=dataclasses.replace(TWO.run, batch_size=24))
  with pytest.raises(ConfigError, match="rows of data.source=12 cannot be divided over 8 devices"):
    prepare(uneven)


def test_what_a_term_needs_of_its_stream_is_checked_before_the_first_step(tmp_path):
  lines = dataclasses.replace(
    streaming(tmp_path), objectives=(Contrastive(), Contrastive(loss=Triplet(), stream="words"))
  )
  with pytest.raises(ConfigError, match=r"triplet_image_text reads 'image', which no column of --data.source lines"):
    train(lines, kinds=(Lines,))
