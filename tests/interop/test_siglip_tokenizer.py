"""SigLIP's spiece.model gives the ids that transformers gives; it is trained here, since none can be had offline."""

import json

import pytest

from mmjax import interop
from mmjax.interop.fields import Fields
from mmjax.interop.pretrained_tokenizer import load_tokenizer
from tests.interop.references import AWKWARD, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
sentencepiece = reference("sentencepiece")

STRANGE = [
  "▁a▁photo ▁",
  "A PHOTO. of   a\u00a0cat\u2028!",
  "one</s>two </s> three<unk>four",
  "</s>",
  " </s></s> ",
  "<unk>",
  "!!!",
  "a cat " * 40 + "</s> a cat",
  "cat" * 9 + "</s>",
  "İstanbul ǅ ﬁ ½ Å",
  "<pad><s>[CLS]",
  "\t</s>\u3000</s>\n" + " " * 20_000 + "a cat",
]


@pytest.fixture(scope="module", params=["unigram", "unigram, no prefix, case-folded", "bpe"])
def folder(request, tmp_path_factory):
  """As of T5, whose vocabulary SigLIP has: padding, end, unknown; trained on what the texts are made of."""
  folder = tmp_path_factory.mktemp("siglip")
  lines = [
    text.lower()
    for text in (*AWKWARD[2:4], *AWKWARD[5:7], *STRANGE[:4], "a photo of a cat", "the dog word one two three four")
  ]
  changes = dict(add_dummy_prefix=False, normalization_rule_name="nmt_nfkc_cf") if "no prefix" in request.param else {}
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines * 3),
    model_prefix=str(folder / "spiece"),
    model_type=request.param.split(",")[0],
    vocab_size=120,
    hard_vocab_limit=False,
    minloglevel=2,
    **(dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1) | changes),
  )
  transformers.SiglipTokenizer(str(folder / "spiece.model")).save_pretrained(folder)
  if "no prefix" in request.param:  # as in the files that were published
    path = folder / "tokenizer_config.json"
    record = json.loads(path.read_text())
    for token in record["added_tokens_decoder"].values():
      token |= dict(lstrip=True, rstrip=True)
    path.write_text(json.dumps(record))
  return folder


@pytest.mark.parametrize("length", [64, 9])
def test_token_ids_of_awkward_strings(folder, length):
  theirs = transformers.SiglipTokenizer.from_pretrained(folder)
  ours = load_tokenizer(folder, length)
  for text in (*AWKWARD, *STRANGE):
    expected = theirs(text, padding="max_length", truncation=True, max_length=length).input_ids
    assert ours([text])[0].tolist() == expected, repr(text[:40])
  assert ours([]).shape == (0, length)


@pytest.mark.parametrize("changes", [{}, dict(extra_ids=0, additional_special_tokens=[]), dict(truncation_side="left")])
def test_t5s_class_in_open_clip(folder, changes, tmp_path):
  """The published SigLIP folders of open_clip name it, with texts cleaned up by open_clip."""
  if folder.name.endswith("2"):  # a BPE model, which T5's class does not have
    return
  (tmp_path / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
  transformers.T5Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
  (tmp_path / "spiece.model").unlink()
  record = json.loads((tmp_path / "tokenizer_config.json").read_text())
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(record | changes))
  open_clip = reference("open_clip")
  kwargs = {"clean": "canonicalize"}
  theirs = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=16, **kwargs)([*AWKWARD, *STRANGE]).tolist()
  text = Fields({"hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": kwargs}, "text_cfg")
  assert load_tokenizer(tmp_path, 16, open_clip=text)([*AWKWARD, *STRANGE]).tolist() == theirs


def test_case_is_kept_where_the_files_say_so(folder):
  record = json.loads((folder / "tokenizer_config.json").read_text())
  (folder / "tokenizer_config.json").write_text(json.dumps(record | {"do_lower_case": False, "pad_token": "<unk>"}))
  theirs = transformers.SiglipTokenizer.from_pretrained(folder)
  expected = theirs(AWKWARD, padding="max_length", truncation=True, max_length=16, return_tensors="np").input_ids
  ours = load_tokenizer(folder, 16)
  assert ours(AWKWARD).tolist() == expected.tolist()
  (folder / "tokenizer_config.json").write_text(json.dumps(record))


@pytest.mark.parametrize("sides", [dict(truncation_side="left"), dict(padding_side="left", model_max_length=9)])
def test_sides_and_length_are_theirs(folder, sides, tmp_path):
  record = json.loads((folder / "tokenizer_config.json").read_text())
  (tmp_path / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(record | dict(model_max_length=16) | sides))
  theirs = transformers.SiglipTokenizer.from_pretrained(tmp_path)
  expected = theirs([*AWKWARD, *STRANGE], padding="max_length", truncation=True).input_ids
  assert load_tokenizer(tmp_path, 64)([*AWKWARD, *STRANGE]).tolist() == expected


def test_what_is_not_understood_is_refused(folder, tmp_path):
  record = json.loads((folder / "tokenizer_config.json").read_text())
  model = (folder / "spiece.model").read_bytes()
  for changes, data, said in (
    ({}, model[:100], "spiece.model is not a SentencePiece model"),
    ({}, b"", "spiece.model is not a SentencePiece model"),
    ({"legacy": False}, model, "legacy is False"),
    ({"eos_token": "<end>"}, model, "'<end>' is not in the vocabulary"),
    ({"sp_model_kwargs": {"alpha": 1}}, model, "sp_model_kwargs"),
    ({"extra_special_tokens": ["<x>"]}, model, "extra_special_tokens"),
    ({"added_tokens_decoder": {"9": {"content": "<x>"}}}, model, "added_tokens_decoder has '<x>'"),
    ({"added_tokens_decoder": {"1": {"content": "</s>", "single_word": True}}}, model, "single_word of '</s>'"),
  ):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(record | changes))
    (tmp_path / "spiece.model").write_bytes(data)
    with pytest.raises(interop.InteropError, match=said):
      load_tokenizer(tmp_path, 8)
