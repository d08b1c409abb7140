"""The studies in experiments/ run, tiny, and say what they found; mistakes are answered."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest

from mmjax.errors import ConfigError
from mmjax.interop import load
from mmjax.study import Variant, members
from mmjax.train.provenance import write_config
from tests.deploy import runs
from tests.experiments.tiny_study import TINY, call

ROOT = Path(__file__).parents[2]
EMOJI = "--data.source.limit 40"


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture
def scripts(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import batch_size_study
  import new_objective

  return new_objective, batch_size_study


def test_an_own_loss_is_compared_with_the_built_in_ones(scripts, options, tmp_path, capsys):
  script, _ = scripts
  study = dataclasses.replace(script.STUDY, variants=script.STUDY.variants[1:])
  where = [*options, "--run.workdir", str(tmp_path)]
  assert call(study, script.EXPERIMENT, "train", *where) == 0
  assert {f"comparison.{kind}" for kind in ("json", "md", "png", "html")} <= {path.name for path in tmp_path.iterdir()}
  records = json.loads((tmp_path / "comparison.json").read_text())
  assert [(record["variant"], record["seeds"]) for record in records] == [("sigmoid", "2"), ("poly", "2")]
  results = json.loads((tmp_path / "poly" / "seed1" / "results.json").read_text())
  (noto,) = (result["metrics"] for result in results if result["dataset"] == "emoji_noto")
  assert records[1]["text to unseen artist, R@10"][1] == noto["image_retrieval_recall@10"]
  lines = (tmp_path / "poly" / "seed0" / "metrics.jsonl").read_text().splitlines()
  assert len(lines) == 2 and "poly_image_text" in json.loads(lines[0])
  capsys.readouterr()
  assert call(study, script.EXPERIMENT, "train", *where) == 0  # everything is there: nothing is trained again
  said = capsys.readouterr().out
  assert said.count("already finished and evaluated") == 4 and "| poly | 16 | 2 |" in said


def test_a_study_s_own_configuration_is_planned(scripts, options, tmp_path, capsys, monkeypatch):
  script, _ = scripts
  monkeypatch.setattr(sys, "argv", [script.__file__])  # which the planning process runs, for its own loss
  where = ["--topology", "cpu:2", *options, "--run.workdir", str(tmp_path)]
  assert call(script.STUDY, script.EXPERIMENT, "plan", *where) == 0
  assert "FITS" in capsys.readouterr().out and (tmp_path / "plan" / "cpu-2.json").exists()


@pytest.mark.parametrize(
  ("script", "smaller", "shown"),
  [
    (
      "vqa_scenes",
      "--data.source.examples 60 --model.fusion.width 16 --model.fusion.depth 1",
      "| joint transformer | 16 | 2 |",
    ),
    (
      "mmm_scenes",
      "--data.source.examples 60 --model.fusion-depth 1 --model.embed-dim 8",
      "| image and text | 16 | 2 |",
    ),
    (
      "coca_emoji",
      "--data.source.limit 40 --model.multimodal-depth 1 --model.embed-dim 8",
      "| contrast and captions | 16 | 2 |",
    ),
    ("unicl_emoji", f"{EMOJI} --model.embed-dim 8", "| UniCL | 16 | 2 |"),
    (
      "digit_reversal",
      "--data.source.examples 60 --model.encoder-depth 1",
      "| learned positions | 16 | 2 |",
    ),
    (
      "naflex_digits",
      "--data.source.examples 60 --data.source.validation 40 --model.embed-dim 8",
      "| own shape, 4 x 12 patches | 16 | 2 |",
    ),
  ],
)
def test_studies_of_other_systems_end_in_a_table(script, smaller, shown, tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  module = importlib.import_module(script)
  known = [tower for tower in ("image", "text") if hasattr(module.EXPERIMENT.model, tower)]
  towers = [f"--model.{tower}.{field}" for tower in known for field in ("width", "depth", "num-heads")]
  sizes = [word for pair in zip(towers, ["16", "1", "2"] * len(known), strict=True) for word in pair]
  options = [*sizes, *smaller.split(), *TINY[TINY.index("--optimizer.algorithm") :], "--data.dir", str(tmp_path)]
  options += ["--run.workdir", str(tmp_path / "run")]
  metrics = {k: v for k, v in module.STUDY.metrics.items() if "text alone" not in k}  # of another variant
  study = dataclasses.replace(module.STUDY, variants=module.STUDY.variants[:1], metrics=metrics, seeds=1, reports=True)
  assert call(study, module.EXPERIMENT, "train", *options) == 0
  assert shown in capsys.readouterr().out
  (report,) = (tmp_path / "run").glob("*/seed0/report.html")
  linked = f'<a href="{report.relative_to(tmp_path / "run").as_posix()}">{study.variants[0].name}, seed 0</a>'
  assert linked in (tmp_path / "run" / "comparison.html").read_text()


def test_pruned_variants_begin_from_the_weights_of_the_main_job(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  script = importlib.import_module("compress_emoji")
  run = runs.two_towers(tmp_path / "main")
  run.workdir.mkdir()
  write_config(run.experiment, run.workdir / "config.json")
  asked = []
  monkeypatch.setattr("mmjax.train.train", lambda experiment: asked.append(experiment.run.workdir))
  monkeypatch.setattr("mmjax.loading.load_run", lambda workdir: run)
  settings = dataclasses.replace(script.EXPERIMENT.run, workdir=tmp_path)
  found = members(script.STUDY, dataclasses.replace(script.EXPERIMENT, run=settings))
  half = next(member for member in found if member.variant.x == 0.5 and member.variant.series == "heads and units")
  assert (half.experiment.model.image.num_heads, half.experiment.model.text.mlp_dim) == (2, 256)
  half.variant.prepare(half.experiment)
  model, _ = load(half.experiment.pretrained.path)
  assert asked == [tmp_path / "main"] and model.config.image.num_heads == 1 and model.config.text.mlp_dim == 32
  assert sorted(member.experiment.compression.sparsity for member in found) == [0, 0, 0, 0, 0.5, 0.8, 0.9]


def test_students_have_the_terms_of_their_variant(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  script = importlib.import_module("distill_emoji")
  found = {member.variant.name: member.experiment for member in members(script.STUDY, script.EXPERIMENT)}
  kinds = {name: {type(term).__name__ for term in one.objectives} for name, one in found.items()}
  assert kinds["student alone"] == {"Contrastive"}
  assert kinds["taught both"] == {"Contrastive", "Distillation", "FeatureDistillation"}
  terms = [term for term in found["taught features"].objectives if term.teacher]
  assert {term.of for term in terms} == {"runs/distill_emoji/teacher"} and {term.project_to for term in terms} == {256}


def test_residual_networks_are_trained_and_evaluated(options, tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  script = importlib.import_module("resnet_emoji")
  monkeypatch.setattr(script, "TOWER", dataclasses.replace(script.TOWER, width=2, num_heads=2, output_dim=8))
  study = dataclasses.replace(script.STUDY, variants=script.STUDY.variants[2:3])
  assert call(study, script.EXPERIMENT, "train", *options, "--run.workdir", str(tmp_path)) == 0
  assert "| ResNet, batch norm | 16 | 2 |" in capsys.readouterr().out
  (result, *_) = json.loads((tmp_path / "ResNet_batch_norm" / "seed0" / "results.json").read_text())
  assert result["model"] == "ResNet-2-32px"


def test_batch_sizes_see_the_same_number_of_examples(scripts, tmp_path):
  _, script = scripts
  runs = [member.experiment for member in members(script.STUDY, script.EXPERIMENT)]
  assert {run.run.steps * run.run.batch_size for run in runs} == {38_400}
  assert max(run.run.batch_size // run.parallel.microbatches for run in runs) == 64
  assert len({run.run.workdir for run in runs}) == len(runs) == 8


def test_the_batch_size_study_draws_a_curve_for_each_loss(scripts, options, tmp_path, capsys, monkeypatch):
  _, script = scripts
  monkeypatch.setattr(script, "MICROBATCH", 8)  # 16 is two microbatches
  study = script.study((8, 16))
  study = dataclasses.replace(study, variants=[v for v in study.variants if v.name in ("sigmoid 8", "softmax 16")])
  assert call(study, script.EXPERIMENT, *options, "--run.workdir", str(tmp_path)) == 0
  table = (tmp_path / "comparison.md").read_text()
  assert "| sigmoid 8 | 8 | 4 | 1 |" in table and "| softmax 16 | 16 | 2 | 2 |" in table
  assert (tmp_path / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize(
  ("command", "change", "said"),
  [
    (["trian"], {}, "unknown command 'trian'; commands are train, evaluate, report"),
    (["report"], {}, "no variant has been measured yet"),
    (["train", "--objectives.0.loss", "pooly"], {}, "unknown pair loss 'pooly'. Did you mean 'poly'?"),
  ],
)
def test_mistakes_are_answered_in_a_sentence(scripts, options, tmp_path, capsys, command, change, said):
  script, _ = scripts
  study = dataclasses.replace(script.STUDY, variants=script.STUDY.variants[2:], **change)
  assert call(study, script.EXPERIMENT, *command, *options, "--run.workdir", str(tmp_path)) == 2
  assert said in " ".join(capsys.readouterr().err.split())


def test_folders_of_variants_are_plain_names(scripts):
  script, _ = scripts
  study = dataclasses.replace(script.STUDY, variants=(Variant("a (b/c) ../d", lambda e: e),))
  one, _ = members(study, script.EXPERIMENT)
  assert one.experiment.run.workdir.parts[-2:] == ("a_b_c_d", "seed0")


def test_a_variant_that_the_settings_do_not_fit_is_named():
  script = importlib.import_module("experiments.vqa_scenes")
  model = dataclasses.replace(script.EXPERIMENT.model, decoder_depth=2)
  with pytest.raises(ConfigError, match="the variant 'image only' .*: the decoder reads the fused question"):
    members(script.STUDY, dataclasses.replace(script.EXPERIMENT, model=model))
