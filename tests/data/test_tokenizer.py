"""Strings to ids: what is padded, cut, folded, saved and refused."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers

from mmjax.data import DataConfig, DataError, Tokenizer, TokenizerConfig, make_tokenizer
from mmjax.data.text.tokenizer import read_vocabulary, train_vocabulary
from mmjax.data.vocabulary import most_frequent

CONFIG = TokenizerConfig(vocab_size=300, max_length=8)
AWKWARD = [
  "",
  " ",
  "\x00",
  "<eos>",
  "<pad> <eos>",
  "日本語のテキスト",
  "العربية",
  "🧑🏿‍🚀",
  "e\u0301 é",
  "a" * 10_000,
  "ﬁ Ⅳ Straße",
  "new\nline\ttab",
  "\u200b\ufeff",
]


@pytest.fixture(scope="module")
def engine():
  return train_vocabulary(["grinning face", "waving hand", "winkende hand", "flag: Germany"] * 3, CONFIG)


def test_texts_end_with_the_end_token_and_are_padded(engine):
  tokenizer = Tokenizer(engine, CONFIG)
  ids = tokenizer(["waving hand", ""])
  assert ids.dtype == np.int32 and ids.shape == (2, 8)
  end = ids[0].tolist().index(tokenizer.eos_id)
  assert end > 0 and (ids[0, end + 1 :] == tokenizer.pad_id).all() and (ids[0, :end] != tokenizer.pad_id).all()
  assert ids[1].tolist() == [tokenizer.eos_id] + [tokenizer.pad_id] * 7
  assert tokenizer.decode(ids[0]).strip() == "waving hand"


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("bos", [None, "<bos>"])
def test_awkward_strings_have_exactly_one_end(text, bos):
  config = dataclasses.replace(CONFIG, bos_token=bos)
  tokenizer = Tokenizer(train_vocabulary(["some text"], config), config)
  (ids,) = tokenizer([text])
  assert ids.shape == (8,) and ids.min() >= 0 and ids.max() < tokenizer.vocab_size
  assert (ids == tokenizer.eos_id).sum() == 1, "the end token survives truncation, and text cannot write it"
  after = ids.tolist().index(tokenizer.eos_id) + 1
  assert (ids[after:] == tokenizer.pad_id).all() and tokenizer.pad_id not in ids[:after]
  assert (ids[0] == tokenizer.bos_id) == (bos is not None)


def test_every_string_can_be_had_back(engine):
  tokenizer = Tokenizer(engine, dataclasses.replace(CONFIG, max_length=200, lowercase=False))
  plain = Tokenizer(train_vocabulary(["x"], tokenizer.config), tokenizer.config)
  for text in ("日本語 العربية 🧑🏿‍🚀", "a <eos> b", "Straße"):
    assert plain.decode(plain([text])[0]).strip() == text


def test_case_and_compatibility_forms_are_folded_on_request(engine):
  folded = Tokenizer(engine, CONFIG)
  np.testing.assert_array_equal(folded(["WAVING ﬁ"]), folded(["waving fi"]))
  config = dataclasses.replace(CONFIG, lowercase=False)
  plain = Tokenizer(train_vocabulary(["Waving waving"], config), config)
  assert (plain(["WAVING"]) != plain(["waving"])).any()


def test_rows_do_not_depend_on_their_neighbours(engine):
  tokenizer = Tokenizer(engine, CONFIG)
  together = tokenizer(AWKWARD)
  np.testing.assert_array_equal(together, np.concatenate([tokenizer([text]) for text in AWKWARD]))


def test_saved_and_loaded_it_is_the_same(engine, tmp_path):
  tokenizer = Tokenizer(engine, CONFIG)
  tokenizer.save(tmp_path / "tokenizer")
  loaded = Tokenizer.load(tmp_path / "tokenizer")
  assert loaded.config == CONFIG
  assert (loaded.pad_id, loaded.eos_id, loaded.vocab_size) == (
    tokenizer.pad_id,
    tokenizer.eos_id,
    tokenizer.vocab_size,
  )
  np.testing.assert_array_equal(loaded([*AWKWARD, "WAVING"]), tokenizer([*AWKWARD, "WAVING"]))
  loaded.save(tmp_path / "again")  # and saving it once more changes nothing
  for name in ("tokenizer.json", "tokenizer_config.json"):
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "tokenizer" / name).read_bytes()


def test_another_vocabulary_than_the_saved_one_is_refused(engine, tmp_path):
  Tokenizer(engine, CONFIG).save(tmp_path)
  other = train_vocabulary(["something else"], CONFIG)
  (tmp_path / "tokenizer.json").write_text(other.to_str())
  with pytest.raises(DataError, match=r"not the vocabulary that tokenizer_config.json was saved with"):
    Tokenizer.load(tmp_path)


def test_any_tokenizer_json_can_be_loaded(tmp_path):
  vocabulary = {"[PAD]": 0, "[SEP]": 1, "[UNK]": 2, "a": 3, "b": 4}
  engine = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
  engine.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  engine.enable_truncation(2)  # the file's own settings must not act
  engine.enable_padding(length=3)
  engine.post_processor = tokenizers.processors.TemplateProcessing("[SEP] $A", special_tokens=[("[SEP]", 1)])
  engine.save(str(tmp_path / "tokenizer.json"))
  config = TokenizerConfig(path=str(tmp_path / "tokenizer.json"), pad_token="[PAD]", eos_token="[SEP]", max_length=6)
  tokenizer = make_tokenizer(DataConfig(tokenizer=config))
  assert tokenizer(["A b a"]).tolist() == [[3, 4, 3, 1, 0, 0]]


def test_vocabulary_is_trained_once_per_data(emoji_config, train_source, tokenizer, monkeypatch):
  monkeypatch.setattr("mmjax.data.vocabulary.train_vocabulary", lambda *_: pytest.fail("trained again"))
  again = make_tokenizer(emoji_config, train_source)
  np.testing.assert_array_equal(again(["grinning face"]), tokenizer(["grinning face"]))
  assert tokenizer.vocab_size == 400


@pytest.mark.parametrize("max_length, share", [(5, None), (4, "67%")])
def test_texts_that_lose_their_end_are_reported(tmp_path, caplog, max_length, share):
  texts = ["a", "aaa", "bbb", "b", "ccc", "ddd"]  # as long as their letters with room for the space and the end
  records = [{"id": text, "concept": 0, "captions": {"name": [text]}} for text in texts]
  config = DataConfig(dir=str(tmp_path), tokenizer=TokenizerConfig(vocab_size=258, max_length=max_length))
  make_tokenizer(config, records)
  messages = [record.getMessage() for record in caplog.records]
  expected = f"{share} of the texts are longer than --data.tokenizer.max-length 4 and lose their end"
  assert messages == [] if share is None else messages[0].startswith(expected)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"eos_token": "</s>"}, r"no token '</s>'. Set --data.tokenizer.eos-token"),
    ({"bos_token": "<pad>"}, r"--data.tokenizer.pad-token '<pad>' is also another special"),
    ({"max_length": 1}, r"--data.tokenizer.max-length 1 leaves no room"),
  ],
)
def test_settings_that_cannot_work_are_refused(engine, change, message):
  with pytest.raises(DataError, match=message):
    Tokenizer(engine, dataclasses.replace(CONFIG, **change))


def test_unreadable_files_are_named(tmp_path):
  with pytest.raises(DataError, match=r"Cannot read the tokenizer .*none.json"):
    make_tokenizer(DataConfig(tokenizer=TokenizerConfig(path=str(tmp_path / "none.json"))))
  (tmp_path / "bad.json").write_text("{")
  with pytest.raises(DataError, match=r"bad.json is not a tokenizer.json"):
    make_tokenizer(DataConfig(tokenizer=TokenizerConfig(path=str(tmp_path / "bad.json"))))
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({})[:-1])
  with pytest.raises(DataError, match=r"Cannot read the tokenizer record"):
    Tokenizer.load(tmp_path)


def test_an_id_that_the_library_would_count_up_to_is_refused(engine, tmp_path):
  record = json.loads(engine.to_str())
  record["model"]["vocab"]["Ġ"] = 2**31  # writing it would take 8 GB, and the process
  (tmp_path / "tokenizer.json").write_text(json.dumps(record))
  with pytest.raises(DataError, match="the id of 'Ġ' is over 16,777,216"):
    read_vocabulary(tmp_path / "tokenizer.json")


def test_a_single_string_is_not_taken_for_a_list(engine):
  with pytest.raises(TypeError, match="sequence of strings"):
    Tokenizer(engine, CONFIG)("waving hand")


PAIRS = dataclasses.replace(CONFIG, bos_token="<bos>", cls_token="<cls>", sep_token="<sep>", mask_token="<mask>")


@pytest.fixture(scope="module")
def special():
  return Tokenizer(train_vocabulary(["grinning face", "waving hand"] * 3, PAIRS), PAIRS, ("yes", "No way"))


def test_trained_vocabularies_reserve_the_special_tokens(special, engine):
  ids = (special.pad_id, special.eos_id, special.bos_id, special.cls_id, special.sep_id, special.mask_id)
  assert ids == (0, 1, 2, 3, 4, 5) and special.special_ids == ids
  (row,) = special(["<mask> <sep>"])
  assert row[0] == special.cls_id and not {special.mask_id, special.sep_id} & set(row.tolist()), "text writes none"
  plain = Tokenizer(engine, CONFIG)
  assert plain.special_ids == (0, 1) and plain.mask_id is plain.sep_id is plain.cls_id is None


def test_pairs_share_a_row_and_the_longer_text_is_cut(special):
  config = dataclasses.replace(PAIRS, max_length=10)
  tokenizer = Tokenizer(special._engine, config)
  word = tokenizer(["waving"])[0, 1:-1]
  word = [int(token) for token in word if token not in tokenizer.special_ids]
  ids, segment = tokenizer.pairs(["waving", "waving " * 9, "waving"], ["waving", "waving " * 9, "waving " * 9])
  room = 10 - 3
  expected = [3, *word, 4, *word, 1]
  assert ids[0].tolist() == expected + [0] * (10 - len(expected))
  assert segment[0].tolist() == [0] * (2 + len(word)) + [1] * (1 + len(word)) + [0] * (10 - len(expected))
  for row, first in ((1, room - room // 2), (2, len(word))):
    assert ids[row].tolist().index(tokenizer.sep_id) == 1 + first
    assert ids[row, -1] == tokenizer.eos_id and segment[row].tolist() == [0] * (2 + first) + [1] * (8 - first)


def test_answers_have_classes_and_ids_of_their_own(special, tmp_path):
  assert special.answer_ids(["no  way", "YES", "perhaps"]).tolist() == [1, 0, -1]
  text = special.answer_text(["waving hand", "waving hand " * 9])
  assert text.shape == (2, 8) and text[:, 0].tolist() == [special.bos_id] * 2
  assert text[0, 1:].tolist()[:3] == special(["waving hand"])[0, 1:4].tolist()
  assert text[1, -1] == special.eos_id, "the end survives truncation"
  special.save(tmp_path)
  loaded = Tokenizer.load(tmp_path)
  assert loaded.answers == special.answers and loaded.special_ids == special.special_ids
  (tmp_path / "answers.json").write_text("{}")
  with pytest.raises(DataError, match=r"answers.json is not a list of answers"):
    Tokenizer.load(tmp_path)
  (tmp_path / "answers.json").write_text("[")
  with pytest.raises(DataError, match=r"Cannot read the answer vocabulary"):
    Tokenizer.load(tmp_path)


def test_another_tokenizer_or_other_answers_than_the_saved_are_noticed(special, engine, tmp_path):
  special.save(tmp_path)
  special.check_saved(tmp_path)
  with pytest.raises(DataError, match=r"The answer vocabulary made from the data is not the one in .*--run.workdir"):
    Tokenizer(special._engine, PAIRS, ("no way", "yes")).check_saved(tmp_path)
  with pytest.raises(DataError, match=r"The tokenizer made from the data is not the one in"):
    Tokenizer(engine, CONFIG, special.answers).check_saved(tmp_path)


def test_tokenizers_saved_before_there_were_masks_load_as_they_were(engine, tmp_path):
  Tokenizer(engine, CONFIG).save(tmp_path)
  record = json.loads((tmp_path / "tokenizer_config.json").read_text())
  for name in ("cls_token", "sep_token", "mask_token", "answer_length"):
    del record[name]
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(record))
  loaded = Tokenizer.load(tmp_path)
  np.testing.assert_array_equal(loaded(AWKWARD), Tokenizer(engine, CONFIG)(AWKWARD))
  assert loaded.config == CONFIG and loaded.answers == ()


@pytest.mark.parametrize(
  "change, use, message",
  [
    ({"mask_token": "<pad>"}, None, r"--data.tokenizer.pad-token '<pad>' is also"),
    ({"mask_token": "<m>"}, None, r"no token '<m>'. Set --data.tokenizer.mask-token"),
    ({"sep_token": None}, lambda tokenizer: tokenizer.pairs(["a"], ["b"]), r"set --data.tokenizer.sep-token"),
    ({"max_length": 4}, lambda tokenizer: tokenizer.pairs(["a"], ["b"]), r"--data.tokenizer.max-length 4 leaves no"),
    ({"answer_length": 2}, lambda tokenizer: tokenizer.answer_text(["a"]), r"--data.tokenizer.answer-length 2"),
  ],
)
def test_special_tokens_that_cannot_work_are_refused(special, change, use, message):
  with pytest.raises(DataError, match=message):
    tokenizer = Tokenizer(special._engine, dataclasses.replace(PAIRS, **change))
    use(tokenizer)


def test_answer_classes_are_the_most_frequent_answers():
  assert most_frequent({"b": 2, "c": 1, "a": 2, "d": 9}, 3) == ("d", "a", "b"), "ties in alphabetical order"


def test_tokens_are_numbered_by_their_words(special):
  texts = ["waving hand", "hand's-on", "", "waving " * 30]
  numbers, ids = special.word_numbers(texts), special(texts)
  assert numbers.shape == ids.shape and numbers.dtype == np.int32
  for row, words in zip(ids, numbers):
    real = ~np.isin(row, special.special_ids)
    np.testing.assert_array_equal(words >= 0, real)
    assert (np.diff(words[real]) >= 0).all()
  first = [special.decode(ids[0][numbers[0] == word]).strip() for word in (0, 1)]
  assert first == ["waving", "hand"] and numbers[0].max() == 1
  assert numbers[1].max() > 0, "punctuation is a word of its own"


def test_a_tokenizer_without_words_is_refused():
  engine = tokenizers.Tokenizer(tokenizers.models.BPE())
  alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  trainer = tokenizers.trainers.BpeTrainer(special_tokens=["<pad>", "<eos>"], initial_alphabet=[*alphabet, " "])
  engine.train_from_iterator(["a b c d"], trainer)
  with pytest.raises(DataError, match="does not split texts into words"):
    Tokenizer(engine, TokenizerConfig()).word_numbers(["a b"])
