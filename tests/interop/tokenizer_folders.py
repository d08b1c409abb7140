"""Folders with the files of tiny tokenizers, as those of published models."""

import json

import tokenizers

from mmjax.interop.sentencepiece_file import read_sentencepiece
from tests.interop.references import AWKWARD, reference

TEXTS = [*AWKWARD, "a <mask> b", "<s> x </s>y <unk>", "Ｈello   world eng_Latn word", "<extra_id_0> photo"]
CORPUS = [text for text in TEXTS if len(text) < 300] + ["a photo of a word", "photos of cats and dogs"]
BYTES = tokenizers.pre_tokenizers.ByteLevel.alphabet()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def roberta(folder):
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=330, special_tokens=[*SPECIAL, "<mask>"], initial_alphabet=BYTES, show_progress=False
  )
  engine = tokenizers.Tokenizer(tokenizers.models.BPE())
  engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  engine.train_from_iterator(CORPUS, trainer)
  engine.model.save(str(folder))  # vocab.json and merges.txt
  (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))


def gpt2(folder):
  roberta(folder)
  settings = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<pad>"}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def mpnet(folder):
  letters = sorted({letter for text in TEXTS for letter in text.lower() if not letter.isspace()})
  words = [*SPECIAL, "[UNK]", "<mask>", "photo", "word", *letters, *(f"##{letter}" for letter in letters)]
  (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)), encoding="utf-8")
  (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MPNetTokenizer"}))


def nllb(folder, spiece):
  engine = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True))
  characters = read_sentencepiece(spiece).characters
  spaces = tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
  engine.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Precompiled(characters), spaces])
  engine.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
  engine.train_from_iterator(CORPUS, trainer)
  model = json.loads(engine.to_str())["model"]
  merges = [tuple(pair) for pair in model["merges"]]
  made = reference("transformers").NllbTokenizer(
    vocab=model["vocab"],
    merges=merges,
    _spm_precompiled_charsmap=characters,
    additional_special_tokens=["eng_Latn", "fra_Latn"],
  )
  made.save_pretrained(folder)
