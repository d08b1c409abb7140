"""The codebases that train_step.py compares: each build_* returns a function that runs one training step.

All see the same shapes and data, float32 parameters and AdamW, and the same softmax loss. Runs in the Python of the
codebase it measures, so it imports nothing else at the top.
"""

import functools
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from typing import Any

Step = Callable[[], float]
ADAM = {"b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2}
LEARNING_RATE = 1e-4


def _jax_step(params: Any, loss: Callable[[Any, Any], Any], data: Any, trim: Callable[[], Any] | None = None) -> Step:
  """One AdamW step. `trim` is called once, after the first step: it gives back what compiling took."""
  import jax
  import optax

  tx = optax.adamw(LEARNING_RATE, **ADAM, mask=lambda p: jax.tree.map(lambda x: x.ndim >= 2, p))

  def update(state: Any, data: Any) -> Any:
    value, grads = jax.value_and_grad(loss)(state[0], data)
    updates, optimizer = tx.update(grads, state[1], state[0])
    return (optax.apply_updates(state[0], updates), optimizer), value

  compiled = jax.jit(update, donate_argnums=0)
  state = (params, jax.jit(tx.init)(params))
  data = jax.tree.map(jax.numpy.asarray, data)

  def step() -> float:
    nonlocal state, trim
    state, value = compiled(state, data)
    jax.block_until_ready(state)
    if trim is not None:
      trim()
      trim = None
    return float(value)

  return step


def build_mmjax(c: dict[str, int], dtype: str, data: Any, *, remat: str = "none", scan: bool = False) -> Step:
  """This repository, with the host tuned as its command line tunes it."""
  sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
  host_path = os.path.join(sys.path[0], "mmjax", "parallel", "host.py")
  spec = importlib.util.spec_from_file_location("host", host_path)  # before `import mmjax` starts JAX
  assert spec is not None and spec.loader is not None
  host = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(host)
  host.tune_allocator()
  host.tune_compiler()
  import flax.linen as nn
  import jax

  from mmjax.encoders import TextConfig, ViTConfig
  from mmjax.models import TwoTower, TwoTowerConfig
  from mmjax.objectives import clip_loss

  shared = {"dtype": dtype, "remat": remat, "scan": scan}
  image = ViTConfig(
    width=c["width"],
    depth=c["depth"],
    num_heads=c["heads"],
    image_size=c["image"],
    patch_size=c["patch"],
    pool="cls",
    **shared,
  )
  text = TextConfig(
    width=c["text_width"],
    depth=c["text_depth"],
    num_heads=c["text_heads"],
    vocab_size=c["vocab"],
    max_length=c["length"],
    eos_id=c["vocab"] - 1,
    **shared,
  )
  model = TwoTower(TwoTowerConfig(image, text, embed_dim=c["embed"]))
  few = {name: value[:2] for name, value in data.items()}
  params = jax.jit(model.init)(jax.random.key(0), few)["params"]

  def forward(model: TwoTower, batch: Any) -> Any:
    embeddings = model.project(model.encode(batch))
    return clip_loss(embeddings["image"], embeddings["text"], logit_scale=model.logit_scale())

  loss = lambda params, batch: nn.apply(forward, model)({"params": params}, batch)
  return _jax_step(params, loss, data, host.trim_allocator)


def build_plain(c: dict[str, int], dtype: str, data: Any) -> Step:
  """CLIP's two towers in nothing but flax.linen, and the loss from the whole matrix of logits."""
  import flax.linen as nn
  import jax
  import jax.numpy as jnp

  class Tower(nn.Module):
    width: int
    depth: int
    heads: int

    @nn.compact
    def __call__(self, x: Any, mask: Any = None) -> Any:
      x = x + self.param("positions", nn.initializers.normal(0.01), x.shape[1:]).astype(dtype)
      for _ in range(self.depth):
        y = nn.LayerNorm(dtype=dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=dtype)(y, mask=mask)
        y = nn.Dense(4 * self.width, dtype=dtype)(nn.LayerNorm(dtype=dtype)(x))
        x = x + nn.Dense(self.width, dtype=dtype)(nn.gelu(y, approximate=False))
      return nn.LayerNorm(dtype=dtype)(x)

  class Clip(nn.Module):
    @nn.compact
    def __call__(self, image: Any, text: Any) -> Any:
      patch = (c["patch"], c["patch"])
      x = nn.Conv(c["width"], patch, patch, padding="VALID", dtype=dtype)(image)
      x = x.reshape(len(x), -1, c["width"])
      first = self.param("class_token", nn.initializers.normal(0.01), (c["width"],)).astype(dtype)
      x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, c["width"])), x], 1)
      y = nn.Embed(c["vocab"], c["text_width"], dtype=dtype)(text)
      x = Tower(c["width"], c["depth"], c["heads"])(x)[:, 0]
      y = Tower(c["text_width"], c["text_depth"], c["text_heads"])(y, nn.make_causal_mask(text))[:, -1]
      features = [nn.Dense(c["embed"], use_bias=False, dtype=dtype)(v).astype(jnp.float32) for v in (x, y)]
      x, y = (v / jnp.linalg.norm(v, axis=-1, keepdims=True) for v in features)
      return jnp.exp(self.param("scale", nn.initializers.constant(2.3), ())) * x @ y.T

  model = Clip()
  params = jax.jit(model.init)(jax.random.key(0), data["image"][:2], data["text"][:2])["params"]

  def loss(params: Any, batch: Any) -> Any:
    logits = model.apply({"params": params}, batch["image"], batch["text"])
    pair = jnp.diagonal(logits)
    return sum((jax.nn.logsumexp(logits, axis=axis) - pair).mean() for axis in (0, 1)) / 2

  return _jax_step(params, loss, data)


def build_big_vision(c: dict[str, int], dtype: str, data: Any, *, path: str) -> Step:
  """google-research/big_vision's two towers, from a checkout at `path`, with its softmax loss on one device."""
  sys.path.insert(0, path)
  import flax.training.checkpoints  # noqa: F401  (looks for tensorflow: before the stand-ins)

  absent = [name for name in ("tensorflow", "ml_collections") if importlib.util.find_spec(name) is None]
  for top in absent:  # imported by its utilities, used by no step
    for name in (top, f"{top}.io", f"{top}.io.gfile"):
      module = types.ModuleType(name)
      module.__path__ = []
      vars(module)["ConfigDict"] = dict
      sys.modules[name] = module
  import jax
  import jax.numpy as jnp
  from big_vision.models import vit
  from big_vision.models.proj.image_text import two_towers

  vit.Encoder = functools.partial(vit.Encoder, dtype_mm=dtype)  # as shipped, the text tower has no such switch
  model = two_towers.Model(
    image={
      "width": c["width"],
      "depth": c["depth"],
      "num_heads": c["heads"],
      "mlp_dim": 4 * c["width"],
      "patch_size": (c["patch"],) * 2,
      "pool_type": "tok",
      "head_zeroinit": False,
    },
    text={
      "width": c["text_width"],
      "depth": c["text_depth"],
      "num_heads": c["text_heads"],
      "mlp_dim": 4 * c["text_width"],
      "vocab_size": c["vocab"],
    },
    out_dim=c["embed"],
    temperature_init=10.0,
  )
  init = jax.jit(lambda key: model.init(key, data["image"][:1], data["text"][:1]))
  params = init(jax.random.key(0))["params"]

  def loss(params: Any, batch: Any) -> Any:
    image, text, out = model.apply({"params": params}, batch["image"], batch["text"], train=True)
    logits = jnp.dot(image, text.T) * out["t"]
    xent = lambda x: -(jnp.diag(x) - jax.scipy.special.logsumexp(x, axis=-1)).mean()
    return 0.5 * (xent(logits) + xent(jnp.dot(text, image.T) * out["t"]))

  return _jax_step(params, loss, data)


def _stub_torchvision() -> None:
  """open_clip imports torchvision for transforms that no step uses: names to import are enough."""
  if importlib.util.find_spec("torchvision") is not None:
    return
  import torch

  class Names(type):
    def __getattr__(cls, name: str) -> str:
      if name.startswith("_"):
        raise AttributeError(name)
      return name

  class Stub(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
      if name.startswith("__"):
        raise AttributeError(name)
      return Names(name, (torch.nn.Module,), {})

  names = ["torchvision" + part for part in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc")]
  for name in names:
    module = Stub(name)
    module.__path__ = []
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    sys.modules[name] = module
  for name in names[1:]:
    parent, _, leaf = name.rpartition(".")
    setattr(sys.modules[parent], leaf, sys.modules[name])


def build_open_clip(c: dict[str, int], dtype: str, data: Any, *, checkpoint: bool = False) -> Step:
  """open_clip's CLIP, trained as open_clip_train does: autocast forward and loss, backward, AdamW."""
  import torch

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  _stub_torchvision()
  import open_clip

  vision = open_clip.CLIPVisionCfg(
    layers=c["depth"],
    width=c["width"],
    head_width=c["width"] // c["heads"],
    patch_size=c["patch"],
    image_size=c["image"],
  )
  text = open_clip.CLIPTextCfg(
    context_length=c["length"],
    vocab_size=c["vocab"],
    width=c["text_width"],
    heads=c["text_heads"],
    layers=c["text_depth"],
  )
  model = open_clip.CLIP(c["embed"], vision, text, output_dict=True)
  model.set_grad_checkpointing(checkpoint)
  model.train()
  loss_fn = open_clip.loss.ClipLoss()
  groups = [
    {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": ADAM["weight_decay"]},
  ]
  optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(ADAM["b1"], ADAM["b2"]), eps=ADAM["eps"])
  image = torch.from_numpy(data["image"]).permute(0, 3, 1, 2).contiguous()
  ids = torch.from_numpy(data["text"]).long()

  def step() -> float:
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
      loss = loss_fn(**model(image, ids))
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  return step
