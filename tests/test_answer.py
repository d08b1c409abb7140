"""Flamingo and projector runs: frozen parts come from other runs and stay, answers, few shots, chats, and refusals."""

import dataclasses

import jax
import numpy as np
import pytest

import mmjax
from mmjax.data import DataConfig, Dialogue, Interleaved, Source, Text, TokenizerConfig
from mmjax.data.scenes import png
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.errors import ConfigError, UserError
from mmjax.evaluate import measure
from mmjax.evaluators import EvaluationConfig, FewShot
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import (
  FlamingoConfig,
  GptConfig,
  InterleavedWordsConfig,
  LinearBridge,
  ProjectorConfig,
  TwoTowerConfig,
)
from mmjax.nn import TransformerConfig, WordsConfig
from mmjax.objectives import Caption, Contrastive, InterleavedText
from mmjax.settings import AdapterConfig, OptimizerConfig
from mmjax.train import train

TINY = dict(width=8, depth=1, num_heads=2)
NAMES = ("dark", "light")


@dataclasses.dataclass(frozen=True)
class Greys(Source):
  """Dark and light images, alone with a caption, or two in a text."""

  columns = {"text": Interleaved(images=3)}  # noqa: RUF012  # no field

  def open(self, split, reading):
    return [self._record(split, number) for number in range(16 if split == "train" else 6)]

  def _record(self, split, number):
    shade = number % 2
    image = png(np.full((8, 8, 3), 255 * shade, np.uint8))
    record = {"id": f"{split}/{number}", "concept": number, "image": image, "captions": {"name": [NAMES[shade]]}}
    asked = {"prompt": "<image> is", "answer": NAMES[shade]}
    return record | asked | {"text": f"<image> is {NAMES[shade]}", "images": [image]}


@dataclasses.dataclass(frozen=True)
class Said(Greys):
  """The captions alone."""

  columns = {"text": Text()}  # noqa: RUF012


@dataclasses.dataclass(frozen=True)
class Talks(Greys):
  """Dialogues of two questions about an image."""

  columns = {"text": Dialogue(images=1, copies=4, user="d", assistant="l")}  # noqa: RUF012

  def _record(self, split, number):
    record = super()._record(split, number)
    turns = [("user", "<image> a"), ("assistant", record["answer"]), ("user", "t"), ("assistant", "light")]
    return {name: record[name] for name in ("id", "concept", "images")} | {"turns": turns}


KINDS = (Greys, Said, Talks)
ADAM = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, schedule="constant", ema_decay=0.5)
NO = EvaluationConfig(evaluators={})


@pytest.fixture(scope="module")
def flamingo(tmp_path_factory):
  """(workdir of all, experiment of the Flamingo, its outcome) after two steps of each."""
  folder = tmp_path_factory.mktemp("flamingo")
  shared = dict(steps=2, batch_size=8, tensorboard=False, log_every=1)
  tokens = dict(vocab_size=280, max_length=20, bos_token="<bos>")
  language = Experiment(
    data=DataConfig(source=Said(), tokenizer=TokenizerConfig(**tokens), dir=str(folder)),
    model=GptConfig(WordsConfig(**TINY, positions="rotary")),
    objectives=(Caption(image=False),),
    evaluation=NO,
    run=RunConfig(**shared, workdir=folder / "language"),
  )
  clip = Experiment(
    data=DataConfig(
      source=Greys(),
      columns=dict(DataConfig().source.columns),
      tokenizer=TokenizerConfig(**tokens | dict(max_length=6)),
      dir=str(folder),
    ),
    model=TwoTowerConfig(image=ViTConfig(**TINY, image_size=8, patch_size=4), text=TextConfig(**TINY), embed_dim=8),
    objectives=(Contrastive(),),
    evaluation=NO,
    run=RunConfig(**shared, workdir=folder / "clip"),
  )
  for other in (language, clip):
    train(other, kinds=KINDS)
  path = str(folder / "language" / "tokenizer" / "tokenizer.json")
  words = InterleavedWordsConfig(**dataclasses.asdict(language.model.text))
  experiment = Experiment(
    data=DataConfig(
      source=Greys(),
      tokenizer=TokenizerConfig(**tokens, path=path, image_token="<image>", chunk_token="<end>"),
      dir=str(folder),
    ),
    model=FlamingoConfig(
      image=clip.model.image,
      text=words,
      image_from=str(folder / "clip"),
      language_from=str(folder / "language"),
      resampler=TransformerConfig(**TINY, linear_bias=False),
      latents=2,
      images=3,
      cross_heads=2,
      cross_head_dim=4,
    ),
    objectives=(InterleavedText(),),
    optimizer=ADAM,
    evaluation=EvaluationConfig(
      evaluators={"few": FewShot(shots=(0, 2)), "wrote": FewShot(shots=(1,), scoring="written")}
    ),
    run=RunConfig(**shared, workdir=folder / "flamingo"),
  )
  return folder, experiment, train(experiment, kinds=KINDS)


def test_frozen_parts_stay_those_of_their_runs_to_the_bit(flamingo):
  folder, _, outcome = flamingo
  params = mmjax.load_run(folder / "flamingo", kinds=KINDS, average=False).params
  language = mmjax.load_run(folder / "language", kinds=KINDS, average=False).params
  clip = mmjax.load_run(folder / "clip", kinds=KINDS, average=False).params
  jax.tree.map(np.testing.assert_array_equal, params["language"], language)
  jax.tree.map(np.testing.assert_array_equal, params["image"], clip["image"])
  fresh = outcome.run.model.init(jax.random.key(0), outcome.run.model.config.example(1))["params"]
  assert params["cross_0"]["attention_gate"] != 0  # the gates have opened
  assert np.abs(params["token_embedding"] - fresh["token_embedding"]).max() > 0
  jax.tree.map(np.testing.assert_array_equal, outcome.run.params["language"], language)  # of the average, too


def test_answers_are_written_and_ranked(flamingo):
  folder, _, _ = flamingo
  run = mmjax.load_run(folder / "flamingo", kinds=KINDS)
  dark, light = (np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
  prompts, images = ["<image> is dark<image> is", "<image> is"], [[dark, light], [light]]
  said = run.answer(prompts, images, max_new_tokens=3)
  assert len(said) == 2 and "<image>" not in "".join(said)
  assert set(run.answer(prompts, images, choices=NAMES)) <= set(NAMES)
  assert run.answer([], []) == []
  one = [
    run.answer([text], [shown], choices=("dark", "light", "a")) for text, shown in zip(prompts, images, strict=True)
  ]
  assert [answer for (answer,) in one] == run.answer(prompts, images, choices=("dark", "light", "a"))


def test_likelihoods_equal_those_of_whole_texts(flamingo):
  from mmjax.evaluate.prompts import Prompt, likelihoods

  run = flamingo[2].run
  light = np.full((8, 8, 3), 255, np.uint8)
  found = likelihoods(run, [Prompt.of("<image> is", [light])], [["dark", "light light dark"]])
  column, tokenizer = Interleaved(images=3), run.tokenizer
  shown = np.asarray(column.lazy_images([([light], "x")], run.transform))
  begun = column.ids(Prompt.of("<image> is", [light]).pieces, tokenizer, end=False)[0]
  for place, words in enumerate(("dark", "light light dark")):
    ids = np.array([[*begun, *tokenizer.word_ids([f" {words}"])[0], tokenizer.chunk_id]], np.int32)
    logits = run.model.apply(
      {"params": run.params}, ids, shown,
      method=lambda m, ids, shown: m.decode(ids, m.encode({"text_images": shown})["text_images"]),
    )  # fmt: skip
    said = jax.nn.log_softmax(logits[0, :-1])[np.arange(ids.shape[1] - 1), ids[0, 1:]]
    np.testing.assert_allclose(found[0, place], said[len(begun) - 1 :].sum(), rtol=1e-5)


def test_few_shots_are_measured_beside_their_controls(flamingo):
  results = {result["dataset"]: result for result in measure(flamingo[2].run)}
  assert list(results) == ["greys_0_shots", "greys_2_shots", "greys_2_shots_shuffled", "greys_written_1_shots"]
  assert results["greys_2_shots_shuffled"]["control"] and results["greys_0_shots"]["chance"]["accuracy"] == 0.5
  assert all(0 <= result["metrics"]["accuracy"] <= 1 and result["n"] == 6 for result in results.values())


def test_similar_demonstrations_come_last(flamingo):
  run = flamingo[2].run
  records = Greys().open("train", None)
  pool, query = records[:4], records[5]
  vectors = (np.eye(2, dtype=np.float32)[[1]], np.eye(2, dtype=np.float32)[[0, 1, 0, 1]])
  chosen = FewShot(choose="similar")._demonstrations([query], pool, 3, vectors)
  assert chosen[0].tolist()[-2:] == [3, 1] and len(FewShot(choose="similar", shots=(1,)).run(run, None)) == 1
  own = FewShot()._demonstrations(records, records, 8, None)
  assert all(place not in row for place, row in enumerate(own))
  fewer = FewShot()._demonstrations(records, records, 3, None)
  assert all((one[:3] == other).all() for one, other in zip(own, fewer, strict=True))


def test_prompts_that_do_not_fit_are_refused(flamingo):
  run = flamingo[2].run
  dark = np.zeros((8, 8, 3), np.uint8)
  for text, shown, said in (
    ("<image> a <image> is", [dark], "has 2 <image> and 1 images"),
    ("is", [dark], "has 0 <image> and 1 images"),
    ("<image>" * 4, [dark] * 4, "4 images, but the model reads 3"),
    ("<image> " + "dark " * 30, [dark], "tokens and 4 may follow, but the model reads 20"),
  ):
    with pytest.raises(UserError, match=said):
      run.answer([text], [shown], max_new_tokens=4)
  with pytest.raises(UserError, match="reads no texts with images"):
    mmjax.load_run(flamingo[0] / "language", kinds=KINDS).answer(["a"], [[]])
  with pytest.raises(TypeError, match="takes a list of prompts"):
    run.answer("a", [])


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (lambda f, e: of_clip(f, e), "is TwoTowerConfig, not a language model"),
    (lambda f, e: with_model(e, language_from=str(f / "clip")), "has a vocabulary of"),
    (lambda f, e: with_model(e, image_from=str(f / "language")), "has no image tower"),
    (lambda f, e: with_model(e, image_from=""), "it is empty: set --model.image-from PATH"),
    (lambda f, e: with_model(e, language_from=str(f / "none")), "does not exist"),
    (lambda f, e: with_model(e, image=dataclasses.replace(e.model.image, patch_size=8)), r"patch_size 8 \(there 4\)"),
    (lambda f, e: with_model(e, text=dataclasses.replace(e.model.text, new_tokens=1)), "new_tokens=1 more"),
    (
      lambda f, e: with_data(e, tokenizer=dataclasses.replace(e.data.tokenizer, path=None, vocab_size=270)),
      "must be the same and model.text.new_tokens=2 more: set --data.tokenizer.path",
    ),
    (lambda f, e: with_data(e, mean=(0.4, 0.5, 0.5)), "saw other colours"),
    (lambda f, e: with_data(e, columns={"text": Interleaved(images=2)}), "make the settings"),
    (lambda f, e: with_data(e, columns={"text": Interleaved(images=3, copies=2)}), "copies=2 image tokens"),
  ],
)
def test_parts_that_do_not_fit_are_refused(flamingo, tmp_path, change, said):
  folder, experiment, _ = flamingo
  changed = change(folder, experiment)
  run = dataclasses.replace(experiment.run, workdir=tmp_path)
  with pytest.raises(ConfigError, match=said):
    train(dataclasses.replace(changed, run=run), kinds=KINDS)


def of_clip(folder, experiment):
  """With the tokenizer of a run that is no language model, and this run as one."""
  path = str(folder / "clip" / "tokenizer" / "tokenizer.json")
  changed = with_model(experiment, language_from=str(folder / "clip"))
  return with_data(changed, tokenizer=dataclasses.replace(experiment.data.tokenizer, path=path))


def with_model(experiment, **fields):
  return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **fields))


def with_data(experiment, **fields):
  return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, **fields))


@pytest.fixture(scope="module")
def talker(flamingo):
  """(workdir, outcome) of a projector model whose language model has low-rank adapters, after two steps."""
  folder, experiment, _ = flamingo
  old, tokens = experiment.model, dataclasses.replace(experiment.data.tokenizer, max_length=30)
  shared = {name: getattr(old, name) for name in ("image", "image_from", "text", "language_from")}
  changed = dataclasses.replace(
    experiment,
    data=dataclasses.replace(experiment.data, source=Talks(), tokenizer=tokens),
    model=ProjectorConfig(**shared, bridge=LinearBridge(), images=1),
    objectives=(InterleavedText(said=True),),
    adapter=AdapterConfig(rank=2, kernels=("^language/.*/(query|value)/kernel$",), trained=("^bridge/", "^token_emb")),
    evaluation=NO,
    run=dataclasses.replace(experiment.run, workdir=folder / "talker"),
  )
  return folder / "talker", train(changed, kinds=KINDS)


def test_a_chat_goes_on_from_its_history(talker):
  run = mmjax.load_run(talker[0], kinds=KINDS)
  dark = np.zeros((8, 8, 3), np.uint8)
  chat = run.chat(max_new_tokens=3)
  said = chat.say("a", [dark])
  assert chat.turns == [("user", "<image> a"), ("assistant", said)] and len(chat.images) == 1
  again = run.chat(max_new_tokens=3)
  assert again.say("<image> a", [dark]) == said
  chat.say("t")
  assert len(chat.turns) == 4 and chat.forgotten == 0
  chat.say("d l d l d l")
  assert chat.forgotten >= 2 and len(chat.turns) == 6  # the earliest turns do not fit any more
  before = list(chat.turns)
  with pytest.raises(UserError, match="has 1 <image> and 0 images"):
    chat.say("<image>")
  with pytest.raises(UserError, match="but the model reads 30"):
    chat.say("light " * 40)
  assert chat.turns == before
  with pytest.raises(UserError, match="was trained on texts, and not on dialogues"):
    mmjax.load_run(talker[0].parent / "flamingo", kinds=KINDS).chat()


def test_adapters_train_and_the_language_model_stays(talker, flamingo):
  from mmjax.models.adapters import merged
  from mmjax.run import CHECKPOINTS
  from mmjax.train.checkpoint import Checkpoints
  from mmjax.train.setup import parameter_plan

  run = talker[1].run
  _, shapes, shardings = parameter_plan(run.experiment, run.mesh)
  checkpoints = Checkpoints(talker[0] / CHECKPOINTS, read_only=True)
  params, _ = checkpoints.restore_params(shapes, shardings, average=False)
  checkpoints.close()
  language = mmjax.load_run(flamingo[0] / "language", kinds=KINDS, average=False).params
  jax.tree.map(np.testing.assert_array_equal, params["language"], language)
  adapted = merged(run.experiment.adapter, params)["language"]["decoder"]["block_0"]["attention"]
  kernels = language["decoder"]["block_0"]["attention"]
  assert np.abs(adapted["query"]["kernel"] - kernels["query"]["kernel"]).max() > 0
  np.testing.assert_array_equal(adapted["key"]["kernel"], kernels["key"]["kernel"])


def test_the_command_line_of_a_chat(talker, tmp_path, capsys, monkeypatch):
  import io

  from mmjax import chat, loading

  real = loading.load_run
  monkeypatch.setattr(loading, "load_run", lambda path: real(path, kinds=KINDS))
  (tmp_path / "a.png").write_bytes(png(np.zeros((8, 8, 3), np.uint8)))
  line = [str(talker[0]), "--image", str(tmp_path / "a.png"), "--max-new-tokens", "3"]
  with pytest.raises(SystemExit) as ended:
    chat.main([*line, "--say", "a", "t"])
  assert ended.value.code == 0
  said = capsys.readouterr().out
  monkeypatch.setattr("sys.stdin", io.StringIO("a\nt\n\nnever read\n"))
  with pytest.raises(SystemExit):
    chat.main(line)
  assert capsys.readouterr().out == said
  for wrong, message in (
    (["--image", "none.png"], "there is no image none.png"),
    (["--max-new-tokens", "0"], "at least 1"),
  ):
    with pytest.raises(SystemExit) as ended:
      chat.main([str(talker[0]), *wrong])
    assert ended.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
