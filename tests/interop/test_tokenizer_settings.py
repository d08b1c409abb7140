"""Tokenizer files: the ids are those of the library that the folder names, or the field is refused by name."""

import json

import numpy as np
import pytest

from mmjax.interop import InteropError, without_effect
from mmjax.interop.fields import Fields
from mmjax.interop.pretrained_tokenizer import load_tokenizer
from tests.interop.references import AWKWARD, clip_vocabulary, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
open_clip = reference("open_clip")

STRANGE = [
  "tab\tnew\nline\vvertical\ffeed\rreturn",
  "bell\x07 null\x00 escape\x1b[31m delete\x7f",
  "\x1cfile\x1dgroup\x1erecord\x1funit\x85next\u2028line\u2029paragraph",
  "ｆｕｌｌ ｗｉｄｔｈ １２３！？",
  "a &amp;amp; b &lt;p&gt; &quot;c&quot; &#39;d&#39; &eacute;",
  "â€œmojibakeâ€\x9d cafÃ© ä½ å¥½",
  "ΟΔΥΣΣΕΥΣ ΣΑΣ σας",
  "İstanbul ıI ǅ ß ẞ ŉ",
  "cafe\u0301 café ｶﾞ ガ か\u3099",
  "ﬁne ﬂow ½ ² Å K Ω",
  "zero\u200bwidth\u200cjoin\u200der\u2060word\ufeffmark",
  "non\u00a0breaking\u2003em\u3000ideographic",
  "it's IT'S we'll WE'LL I'd I'D they're",
  "'s 't 're 've 'm 'll 'd",
  "3.14 1,000 ٣ 五 ½ Ⅷ 10⁵",
  "snake_case kebab-case CamelCase path/to/file.jpg",
  "$100 50% #tag @user http://x.y/?z=1&w=2",
  "《書名》「引用」…——",
  "ไทย हिन्दी 한국어 日本語テキスト",
  "Ｈello‐world – em — minus − dash",
  "“quotes” ‘single’ «guillemets» „low“",
  "<|startoftext|> <|endoftext|> <|ENDOFTEXT|>",
  "naïve façade Ångström Žižek",
  "a\u0308\u0304 multiple\u0316\u0301 marks",
  "🏳️‍🌈👩🏽‍🚀👍🏿 ❤️ ©️ ™",
  "    ",
  "[CLS] [MASK] [UNK] [SEP] [PAD]",
  "supercalifragilisticexpialidocious" * 4,
  "word," * 40,
  "א ב ג ابجد",
  "\ud7ff\ue000\uf8ff private",
]
TEXTS = [*STRANGE, *AWKWARD]
assert len(STRANGE) == 31


def theirs(tokenizer, length, **more):
  return tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, **more).input_ids


def assert_same_ids(ours, expected):
  for text, mine, yours in zip(TEXTS, ours(TEXTS).tolist(), expected, strict=True):
    assert mine == yours, repr(text[:40])


def edited(folder, **changes):
  path = folder / "tokenizer_config.json"
  record = json.loads(path.read_text()) | changes
  path.write_text(json.dumps({name: value for name, value in record.items() if value != "removed"}))
  return folder


@pytest.fixture(scope="module")
def vocabularies():
  """CLIP's own, and a small one of BERT's kind."""
  letters = sorted({letter for text in TEXTS for letter in text.lower() + text if not letter.isspace()})
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cafe", "café", "istanbul", "word", "日本", "[x]"]
  words += [*letters, *(f"##{letter}" for letter in letters)]
  return {"clip": clip_vocabulary(), "bert": {word: number for number, word in enumerate(dict.fromkeys(words))}}


@pytest.fixture
def write(vocabularies, tmp_path):
  def write(kind):
    if kind == "CLIPTokenizer":
      vocabulary, merges = vocabularies["clip"]
      transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path)
    else:
      transformers.BertTokenizer(vocab=vocabularies["bert"]).save_pretrained(tmp_path)
    return tmp_path

  return write


BERT, CLIP = "BertTokenizer", "CLIPTokenizer"
CASES = [
  (CLIP, {}),
  (CLIP, dict(tokenizer_class="CLIPTokenizerFast")),
  (CLIP, dict(truncation_side="left")),
  (CLIP, dict(padding_side="left")),
  (CLIP, dict(pad_token="!")),
  (CLIP, dict(bos_token="a</w>", eos_token="b</w>")),
  (CLIP, dict(split_special_tokens=True)),
  (CLIP, dict(extra_special_tokens=["photo"])),
  (CLIP, dict(tokenizer_class="PreTrainedTokenizerFast")),
  (CLIP, dict(tokenizer_class="removed")),
  (BERT, {}),
  (BERT, dict(do_lower_case=False)),
  (BERT, dict(strip_accents=False)),
  (BERT, dict(strip_accents=True)),
  (BERT, dict(do_lower_case=False, strip_accents=True)),
  (BERT, dict(tokenize_chinese_chars=False)),
  (BERT, dict(never_split=["word", "日本"], do_basic_tokenize=False)),
  (BERT, dict(tokenizer_class="BertTokenizerFast", do_lower_case=False, truncation_side="left")),
  (BERT, dict(tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False)),
  (BERT, dict(tokenizer_class="removed", do_lower_case=False)),
  (BERT, dict(cls_token="word", sep_token="café", unk_token="[MASK]")),
  (BERT, dict(padding_side="left", pad_token="[UNK]")),
]


@pytest.mark.parametrize("length", [77, 6])
@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_equal_ids(kind, changes, length, write):
  folder = edited(write(kind), **changes)
  (folder / "config.json").write_text(json.dumps({"model_type": "clip" if kind == CLIP else "bert"}))
  expected = theirs(transformers.AutoTokenizer.from_pretrained(folder), length)
  assert_same_ids(load_tokenizer(folder, length), expected)


def test_what_tokenizer_json_says_otherwise_has_no_effect(write):
  """The classes take only the vocabulary from it, and the sides of truncation and padding."""
  for kind in (CLIP, BERT):
    folder = write(kind)
    content = json.loads((folder / "tokenizer.json").read_text())
    content |= dict(normalizer={"type": "NFD"}, pre_tokenizer={"type": "Whitespace"})
    content["truncation"] = dict(direction="Left", max_length=5, strategy="LongestFirst", stride=0)
    content["padding"] = dict(strategy={"Fixed": 9}, direction="Left", pad_id=1, pad_token="x", pad_type_id=0)
    content["padding"] |= dict(pad_to_multiple_of=None)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    expected = theirs(transformers.AutoTokenizer.from_pretrained(folder), 12)
    assert_same_ids(load_tokenizer(folder, 12), expected)


def test_special_tokens_map_has_precedence_unless_added_tokens_are_listed(write):
  folder = edited(write(CLIP), pad_token="!")
  (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "a</w>", "lstrip": False}}))
  assert_same_ids(load_tokenizer(folder, 20), theirs(transformers.AutoTokenizer.from_pretrained(folder), 20))
  edited(folder, added_tokens_decoder={"320": {"content": "a</w>"}, "1125": {"content": "photo</w>", "special": True}})
  assert_same_ids(load_tokenizer(folder, 20), theirs(transformers.AutoTokenizer.from_pretrained(folder), 20))


def test_early_added_tokens(write):
  folder = write(BERT)
  size = len(transformers.AutoTokenizer.from_pretrained(folder))
  (folder / "added_tokens.json").write_text(json.dumps({"snake": size, "photo": size + 1}))
  expected = theirs(transformers.AutoTokenizer.from_pretrained(folder), 20)
  assert_same_ids(load_tokenizer(folder, 20), expected)
  assert any(size + 1 in row for row in expected)


def test_a_length_in_the_files_is_theirs(write):
  """Without a length of its own, their call takes model_max_length. An asked length has precedence."""
  folder = edited(write(CLIP), model_max_length=9)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  expected = tokenizer(TEXTS, padding="max_length", truncation=True).input_ids
  assert_same_ids(load_tokenizer(folder, 77), expected)
  assert load_tokenizer(folder, 12, whole=True)(["a"]).shape == (1, 12)
  assert load_tokenizer(edited(folder, model_max_length=1e30), 77)(["a"]).shape == (1, 77)
  with pytest.raises(InteropError, match="model_max_length"):
    load_tokenizer(edited(folder, model_max_length="9"), 77)


def test_without_tokenizer_json(write, vocabularies):
  """From vocab.json and merges.txt, and from vocab.txt."""
  folder = write(CLIP)
  (folder / "tokenizer.json").unlink()
  vocabulary, merges = vocabularies["clip"]
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8")
  assert_same_ids(load_tokenizer(folder, 30), theirs(transformers.AutoTokenizer.from_pretrained(folder), 30))
  folder = write(BERT)
  (folder / "tokenizer.json").unlink()
  (folder / "vocab.txt").write_text("\n".join(vocabularies["bert"]) + "\n", encoding="utf-8")
  edited(folder, do_lower_case=False)
  assert_same_ids(load_tokenizer(folder, 30), theirs(transformers.AutoTokenizer.from_pretrained(folder), 30))


def test_the_slow_tokenizer_where_the_folder_names_it(write, vocabularies):
  """transformers 4 alone, and the slow class's files alone: its texts are repaired with ftfy.

  transformers 5 has no such class. It is open_clip's tokenizer with less clean-up, which is the judge here.
  """
  import ftfy

  folder = write(CLIP)
  (folder / "config.json").write_text(json.dumps({"model_type": "clip", "transformers_version": "4.57.3"}))
  fast = load_tokenizer(folder, 77)
  assert fast.clean == ""  # as transformers' AutoTokenizer, and CLIPProcessor: the fast class
  (folder / "tokenizer.json").unlink()
  vocabulary, merges = vocabularies["clip"]
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8")
  slow, judge = load_tokenizer(folder, 77), open_clip.tokenizer.SimpleTokenizer()
  judge.clean_fn = lambda text: " ".join(ftfy.fix_text(text).split()).lower()
  texts = [text for text in STRANGE if "<|" not in text]  # special tokens have other names there
  ids, expected = slow(texts), judge(texts).numpy()
  ends = expected.argmax(1)
  for text, mine, yours, end in zip(texts, ids, expected, ends, strict=True):
    assert mine[: end + 1].tolist() == yours[: end + 1].tolist(), repr(text)
    assert set(mine[end:]) == {49407}
  assert sum(bool(np.any(a != b)) for a, b in zip(fast(texts), ids, strict=True)) >= 4
  (folder / "config.json").write_text(json.dumps({"model_type": "clip", "transformers_version": "5.0.0"}))
  assert load_tokenizer(folder, 77).clean == ""


VALUES = {"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids"], "added_tokens_decoder": {}}
VALUES |= {"chat_template": "x", "never_split": ["word"], "use_fast": False, "model_max_length": 5, "max_len": 5}
VALUES |= {"truncation_strategy": "longest_first", "errors": "replace", "vocab_file": "x", "tokenizer_file": "x"}
VALUES |= {"chat_control_tokens": ["x"], "response_template": None, "response_schema": {"x": 1}}
VALUES |= {"fast_tokenizer_files": ["tokenizer.json"], "sp_model_kwargs": {"x": 1}, "backend": "tokenizers"}
READ = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "tokenizer_class", "added_tokens_decoder")


@pytest.mark.parametrize("kind", [BERT, CLIP])
def test_fields_without_effect_have_none(kind, write):
  folder = write(kind)
  expected = theirs(transformers.AutoTokenizer.from_pretrained(folder), 20)
  changes = {name: VALUES.get(name, True) for name in without_effect.TOKENIZER if kind == CLIP or name not in READ}
  del changes["model_max_length"], changes["max_len"]
  edited(folder, **changes | {"tokenizer_class": kind})
  (folder / "config.json").write_text("{}")
  assert theirs(getattr(transformers, kind).from_pretrained(folder), 20) == expected
  assert_same_ids(load_tokenizer(folder, 20), expected)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(tokenizer_class="FunnelTokenizer"), "tokenizer_class is 'FunnelTokenizer'"),
    (dict(auto_map={"AutoTokenizer": ["x.Y", None]}), "auto_map"),
    (dict(pad_token=None), "pad_token"),
    (dict(bos_token=7), "bos_token"),
    (dict(truncation_side="middle"), "truncation_side"),
    (dict(language="en"), "language"),
    (dict(extra_special_tokens={"x": "<x>"}), "extra_special_tokens"),
    (dict(added_tokens_decoder={"x": {"content": "<x>"}}), "added_tokens_decoder"),
    (dict(image_token="<image>"), "image_token"),
  ],
)
def test_what_is_not_supported_is_refused_by_name(changes, said, write):
  folder = edited(write(CLIP), **changes)
  with pytest.raises(InteropError, match=f"tokenizer_config.json.*{said}"):
    load_tokenizer(folder, 77)


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
@pytest.mark.parametrize("files", ["none", "tokenizer.json", "vocab.json", "gz"])
def test_open_clips_own_tokenizer(files, clean, write, tmp_path, vocabularies):
  """Without files of its own, its vocabulary is that of the installed package. Files of other names say the same."""
  from pathlib import Path
  from shutil import copy

  if files in ("tokenizer.json", "vocab.json"):
    write(CLIP)
  if files == "vocab.json":
    (tmp_path / "tokenizer.json").unlink()
    vocabulary, merges = vocabularies["clip"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8")
  if files == "gz":
    copy(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", tmp_path)
  ours = load_tokenizer(tmp_path, 77, open_clip=Fields({"tokenizer_kwargs": {"clean": clean}}, "text_cfg"))
  texts = [*TEXTS, "<start_of_text> a <end_of_text> b", "IT'S WE'LL I'D"]
  expected = open_clip.tokenizer.SimpleTokenizer(clean=clean)(texts).numpy()
  for text, mine, yours in zip(texts, ours(texts), expected, strict=True):
    assert mine.tolist() == yours.tolist(), repr(text[:40])


def test_open_clip_without_files_and_without_its_package(tmp_path, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(InteropError, match="pip install open_clip_torch, or copy bpe_simple_vocab_16e6.txt.gz"):
    load_tokenizer(tmp_path, 77, open_clip=Fields({}, "text_cfg"))
  with pytest.raises(InteropError, match=r"AutoTokenizer.from_pretrained\('bert-base-uncased'\)"):
    load_tokenizer(tmp_path, 77, open_clip=Fields({"hf_tokenizer_name": "bert-base-uncased"}, "text_cfg"))


@pytest.mark.parametrize("kwargs", [{}, {"strip_sep_token": True}, {"clean": "canonicalize", "strip_sep_token": True}])
def test_open_clip_with_a_tokenizer_of_transformers(kwargs, write):
  """CLIPA writes the separator as 0. model_max_length has no effect: open_clip gives a length."""
  folder = edited(write(BERT), model_max_length=7)
  expected = open_clip.tokenizer.HFTokenizer(str(folder), context_length=16, **kwargs)(TEXTS).tolist()
  text = Fields({"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": kwargs}, "text_cfg")
  assert_same_ids(load_tokenizer(folder, 16, open_clip=text), expected)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ({"tokenizer_kwargs": {"reduction_mask": "random"}}, "tokenizer_kwargs.*reduction_mask"),
    ({"tokenizer_kwargs": {"strip_sep_token": True}}, "tokenizer_kwargs.*strip_sep_token"),
    ({"tokenizer_kwargs": {"clean": "upper"}}, "clean is 'upper'"),
    ({"tokenizer_mode": "clips"}, "tokenizer_mode is 'clips'"),
    ({"hf_tokenizer_name": "x", "tokenizer_kwargs": {"language": "en"}}, "tokenizer_kwargs.*language"),
    ({"hf_tokenizer_name": "x", "tokenizer_kwargs": {"strip_sep_token": True}}, "no sep_token"),
  ],
)
def test_what_open_clip_has_and_mmjax_has_not(text, said, write):
  with pytest.raises(InteropError, match=f"text_cfg.*{said}"):
    load_tokenizer(write(CLIP), 77, open_clip=Fields(text, "text_cfg"))
