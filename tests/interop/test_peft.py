"""PEFT and mmjax read each other's adapters: the same tensors to the bit, and the same numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.experiment import Experiment
from mmjax.interop.errors import InteropError
from mmjax.interop.peft import read_peft, write_peft
from mmjax.models.adapters import initial_adapters, merged
from mmjax.run import Run
from mmjax.settings import AdapterConfig
from tests.interop.references import IMAGES, assert_close, assert_same_tensors, randomize, reference

pytestmark = pytest.mark.references
transformers, peft = reference("transformers"), reference("peft")
import torch  # noqa: E402  transformers is here, so this is

VIT = dict(
  hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8
)
KINDS = [
  ("ViT", VIT, ["q_proj", "fc1"], False),
  ("ViT", VIT, ["q_proj", "o_proj"], True),
  ("DeiT", VIT, ["v_proj", "fc2"], False),
  ("Siglip", dict(vision_config=VIT), ["q_proj", "k_proj"], False),
]
PIXELS = torch.from_numpy(IMAGES[:, :16, :16].transpose(0, 3, 1, 2).copy())


def base(kind, fields):
  torch.manual_seed(0)
  model = getattr(transformers, f"{kind}ForImageClassification")(
    getattr(transformers, f"{kind}Config")(**fields, num_labels=3, attn_implementation="eager")
  )
  randomize(model)
  return model.eval()


@pytest.mark.parametrize(("kind", "fields", "modules", "dora"), KINDS, ids=["vit", "vit-dora", "deit", "siglip"])
def test_adapters_of_peft_give_its_numbers_and_go_back(kind, fields, modules, dora, tmp_path):
  theirs = base(kind, fields)
  theirs.save_pretrained(tmp_path / "base")
  config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=modules, modules_to_save=["classifier"], use_dora=dora)
  adapted = peft.get_peft_model(theirs, config).eval()
  randomize_adapters(adapted)
  adapted.save_pretrained(tmp_path / "adapter")
  model, params = interop.load(tmp_path / "base")
  ours = interop.load_adapters(tmp_path / "adapter", model, params)
  expected = adapted(PIXELS).logits
  assert_close(np.asarray(model.apply({"params": ours}, {"image": jnp.asarray(IMAGES[:, :16, :16])})), expected)
  again = write_peft(read_peft(tmp_path / "adapter", model.config), model.config, tmp_path / "2")
  assert_same_tensors(tmp_path / "adapter" / "adapter_model.safetensors", again)
  back = peft.PeftModel.from_pretrained(base(kind, fields), tmp_path / "2").eval()
  torch.testing.assert_close(back(PIXELS).logits, expected, rtol=0, atol=1e-6)


def randomize_adapters(model):
  generator = torch.Generator().manual_seed(1)
  for name, tensor in model.named_parameters():
    if "lora_" in name or "modules_to_save" in name:
      tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_peft_loads_the_adapters_of_a_run(dora, tmp_path):
  theirs = base("ViT", VIT)
  theirs.save_pretrained(tmp_path / "base")
  model, params = interop.load(tmp_path / "base")
  config = AdapterConfig(rank=2, alpha=6.0, dora=dora)
  adapters = initial_adapters(config, params, jax.random.key(0))
  adapters = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), adapters)
  whole = merged(config, {**params, "adapters": adapters})
  run = Run(Experiment(model=model.config, adapter=config), tmp_path, model, whole, None, None, 1, adapters=adapters)
  interop.save_adapters(run, tmp_path / "adapter")
  found = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
  ours = model.apply({"params": whole}, {"image": jnp.asarray(IMAGES[:, :16, :16])})
  assert_close(np.asarray(ours), found(PIXELS).logits)


def test_adapters_that_do_not_fit_are_refused(tmp_path):
  theirs = base("ViT", VIT)
  theirs.save_pretrained(tmp_path / "base")
  model, params = interop.load(tmp_path / "base")
  adapted = peft.get_peft_model(theirs, peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"]))
  adapted.save_pretrained(tmp_path / "adapter")
  wider = base("ViT", VIT | dict(hidden_size=32))
  wider.save_pretrained(tmp_path / "wider")
  load = lambda: interop.load_adapters(tmp_path / "adapter", model, params)
  with pytest.raises(InteropError, match="the adapter of image/.*/query/kernel has .* another base"):
    interop.load_adapters(tmp_path / "adapter", *interop.load(tmp_path / "wider"))
  shallow = dataclasses.replace(model.config.towers["image"], depth=1)
  with pytest.raises(InteropError, match="layers.1.attention.q_proj.* is for a part that ViTForImage.* another base"):
    read_peft(tmp_path / "adapter", dataclasses.replace(model.config, towers={"image": shallow}))
  path = tmp_path / "adapter" / "adapter_config.json"
  fields = json.loads(path.read_text())
  for wrong, message in (
    ({"peft_type": "IA3"}, "mmjax reads LORA"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
    ({"r": 0}, "r is 0"),
  ):
    path.write_text(json.dumps(fields | wrong))
    with pytest.raises(InteropError, match=message):
      load()
  with pytest.raises(InteropError, match="has no adapter_config.json"):
    interop.load_adapters(tmp_path / "base", model, params)
