"""Settings of the tokenizer."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """Tokenizer settings. They are saved with the data set's tokenizer and beside every checkpoint."""

  path: str | None = None
  """A tokenizer.json, or the folder of a checkpoint, whose tokenizer then makes the same ids as in its own library.
  None: a byte-level BPE is trained on the data's captions at first use."""
  vocab_size: int = 8192
  """Size of the vocabulary to train, special tokens included (ignored with `path`)."""
  max_length: int = 24
  """Tokens per text, special tokens included; longer texts are cut, but keep their end token."""
  lowercase: bool = True
  """Fold case (and compatibility forms, NFKC) before tokenizing."""
  pad_token: str = "<pad>"
  """Fills texts up to max_length."""
  eos_token: str = "<eos>"
  """Ends every text, also one that was cut."""
  bos_token: str | None = None
  """Begins every text, if set; with `cls_token`, only what a decoder says (answer_text)."""
  cls_token: str | None = None
  """Begins every text, if set, in place of `bos_token`; "<cls>" for BERT and its like."""
  sep_token: str | None = None
  """Stands between the two texts of a pair, if set; the text corpora need it."""
  mask_token: str | None = None
  """Stands for a masked word, if set; masked modelling needs it."""
  image_token: str | None = None
  """Stands for an image among the words, if set. A vocabulary without it gets it as its last token but chunk_token."""
  chunk_token: str | None = None
  """Ends each text between images, if set. A vocabulary without it gets it as its last token."""
  answer_length: int = 8
  """Tokens per answer to a question, special tokens included."""
