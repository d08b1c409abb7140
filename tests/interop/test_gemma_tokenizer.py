"""SigLIP 2's tokenizer, Gemma's with the text lowered, gives the ids that transformers gives; trained here, offline."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mmjax.interop.pretrained_tokenizer import load_tokenizer
from tests.interop.references import AWKWARD, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")

STRANGE = ["A  PHOTO of\u00a0a cat ", " ▁a▁", "İstanbul ǅ ﬁ", "one<eos>two <bos> <PAD><pad>", "a cat " * 40]


@pytest.fixture(scope="module")
def bpe():
  """(vocabulary, merges) with bytes to fall back on."""
  engine = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
  engine.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
  texts = ["a▁photo▁of▁a▁cat", "the▁dog▁word▁one▁two▁three", "A▁PHOTO▁Of▁A▁Cat", "İstanbul"] * 3
  engine.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False))
  model = json.loads(engine.to_str())["model"]
  return model["vocab"], [tuple(merge) for merge in model["merges"]]


@pytest.mark.parametrize(
  ("name", "model_type", "options"),
  [
    ("Siglip2Tokenizer", "siglip2", {}),
    ("GemmaTokenizer", "siglip2", dict(add_bos_token=False, add_eos_token=True, padding_side="right")),
    ("GemmaTokenizer", "gemma", dict(add_bos_token=True, add_eos_token=False)),
  ],
)
@pytest.mark.parametrize("length", [64, 9])
def test_token_ids_of_awkward_strings(bpe, name, model_type, options, length, tmp_path):
  vocabulary, merges = bpe
  getattr(transformers, name)(vocab=vocabulary, merges=merges, **options).save_pretrained(tmp_path)
  (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert type(theirs).__name__ == ("Siglip2Tokenizer" if model_type == "siglip2" else name)
  ours = load_tokenizer(tmp_path, length)
  for text in (*AWKWARD, *STRANGE):
    expected = theirs(text, padding="max_length", truncation=True, max_length=length).input_ids
    assert ours([text])[0].tolist() == expected, repr(text[:40])
