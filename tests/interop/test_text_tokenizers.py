"""Tokenizers of RoBERTa, XLM-RoBERTa, MPNet, T5 and NLLB give the ids of transformers and open_clip."""

import json
import shutil

import pytest

from mmjax.interop import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.pretrained_tokenizer import load_tokenizer
from mmjax.interop.sentencepiece_file import read_sentencepiece
from tests.interop.references import reference
from tests.interop.tokenizer_folders import CORPUS, TEXTS, gpt2, mpnet, nllb, roberta

pytestmark = pytest.mark.references
transformers = reference("transformers")
sentencepiece = reference("sentencepiece")


@pytest.fixture(scope="module")
def spiece(tmp_path_factory):
  """A unigram model of SentencePiece with its normalisation, nmt_nfkc."""
  folder = tmp_path_factory.mktemp("spiece")
  (folder / "corpus.txt").write_text("\n".join(text.replace("\x00", "") for text in CORPUS), encoding="utf-8")
  sentencepiece.SentencePieceTrainer.train(
    input=str(folder / "corpus.txt"), model_prefix=str(folder / "unigram"), vocab_size=150, hard_vocab_limit=False
  )
  return folder / "unigram.model"


@pytest.fixture(scope="module")
def t5_spiece(spiece):
  path = spiece.with_name("t5.model")
  sentencepiece.SentencePieceTrainer.train(
    input=str(spiece.with_name("corpus.txt")),
    model_prefix=str(path.with_suffix("")),
    vocab_size=150,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
  )
  return path


@pytest.fixture
def folder(request, tmp_path, spiece, t5_spiece):
  """(folder, class of transformers): files as the class's models are published."""
  match request.param.split()[0]:
    case "RobertaTokenizer":
      roberta(tmp_path)
    case "GPT2Tokenizer":
      gpt2(tmp_path)
    case "MPNetTokenizer":
      mpnet(tmp_path)
    case "NllbTokenizer":
      nllb(tmp_path, spiece)
    case "T5Tokenizer":
      shutil.copy(t5_spiece, tmp_path / "spiece.model")
      (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="T5Tokenizer", extra_ids=3)))
    case "XLMRobertaTokenizer":
      shutil.copy(spiece, tmp_path / "sentencepiece.bpe.model")
      (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}))
  if "saved" in request.param:
    transformers.AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"
  return tmp_path


def edited(folder, changes):
  path = folder / "tokenizer_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


ROBERTA, XLM, T5, GPT2 = "RobertaTokenizer", "XLMRobertaTokenizer", "T5Tokenizer", "GPT2Tokenizer"
CASES = [
  (ROBERTA, {}),
  (ROBERTA, dict(add_prefix_space=True, truncation_side="left")),
  (f"{ROBERTA} saved", dict(padding_side="left", trim_offsets=False)),
  (f"{ROBERTA} saved", dict(cls_token="</s>", sep_token="<pad>")),
  (GPT2, {}),
  (GPT2, dict(add_prefix_space=True, add_bos_token=True, padding_side="left")),
  (f"{GPT2} saved", dict(add_eos_token=True, eos_token="</s>", truncation_side="left")),
  (f"{GPT2} saved", {}),
  ("MPNetTokenizer", {}),
  ("MPNetTokenizer saved", dict(do_lower_case=False)),
  (XLM, {}),
  (XLM, dict(mask_token="[M]")),
  (f"{XLM} saved", {}),
  (f"{XLM} saved", dict(add_prefix_space=False, truncation_side="left")),
  (T5, {}),
  (f"{T5} saved", {}),
  ("NllbTokenizer", {}),
  ("NllbTokenizer", dict(src_lang="fra_Latn", tgt_lang="eng_Latn")),
  ("NllbTokenizer", dict(legacy_behaviour=True)),
]


@pytest.mark.parametrize(("folder", "changes"), CASES, indirect=["folder"])
def test_ids_are_those_of_transformers(folder, changes):
  edited(folder, changes)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  for length in (40, 6):
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=length).input_ids
    ours = load_tokenizer(folder, length)(TEXTS).tolist()
    for text, mine, yours in zip(TEXTS, ours, expected, strict=True):
      assert mine == yours, repr(text[:40])


@pytest.mark.parametrize("folder", [ROBERTA, f"{XLM} saved", "NllbTokenizer"], indirect=True)
def test_ids_are_those_of_open_clip(folder):
  """With the clean-up of open_clip, at its length, which is not the number of positions."""
  HFTokenizer = reference("open_clip.tokenizer").HFTokenizer
  for settings in ({}, dict(clean="canonicalize", strip_sep_token=True)):
    text = dict(hf_model_name="x", hf_tokenizer_name="x", context_length=9, tokenizer_kwargs=settings)
    expected = HFTokenizer(str(folder), context_length=9, **settings)(TEXTS).numpy()
    ours = load_tokenizer(folder, 512, open_clip=Fields(text, "text_cfg"))(TEXTS)
    assert ours.tolist() == expected.tolist()
  default = load_tokenizer(folder, 512, open_clip=Fields(dict(hf_model_name="x", hf_tokenizer_name="x"), "text_cfg"))
  assert default.max_length == 77


@pytest.mark.parametrize(
  ("folder", "changes", "said"),
  [
    ("NllbTokenizer", dict(src_lang="xxx_Latn"), "src_lang is 'xxx_Latn', but must be the code of a language"),
    ("NllbTokenizer", dict(tokenizer_class="RobertaTokenizer", add_prefix_space=1), "add_prefix_space is 1"),
    (XLM, dict(tokenizer_class="NllbTokenizer"), "has no tokenizer.json \\(only .*sentencepiece.bpe.model"),
    (XLM, dict(add_prefix_space="yes"), "add_prefix_space is 'yes'"),
  ],
  indirect=["folder"],
)
def test_what_is_not_supported_is_refused(folder, changes, said):
  edited(folder, changes)
  with pytest.raises(InteropError, match=said):
    load_tokenizer(folder, 8)


def test_the_sentencepiece_file_is_read_as_sentencepiece_reads_it(spiece, tmp_path):
  model = sentencepiece.SentencePieceProcessor(model_file=str(spiece))
  found = read_sentencepiece(spiece)
  ids = range(model.get_piece_size())
  assert found.pieces == [(model.id_to_piece(id), model.get_score(id)) for id in ids]
  assert found.unigram and len(found.characters) > 1000
  data = spiece.read_bytes()
  for damaged in (b"", data[:1000], b"\x0b" + data, b"\xff" * 20, data[:-1]):
    (tmp_path / "damaged.model").write_bytes(damaged)
    with pytest.raises(InteropError, match="is not a SentencePiece model"):
      read_sentencepiece(tmp_path / "damaged.model")
