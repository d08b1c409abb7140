"""What the tests of studies share: options that make one of emoji tiny, and its call.

Momentum compiles sooner than Adam.
"""

import pytest

from mmjax.study import main

TINY = """--data.source.limit 40 --data.tokenizer.vocab-size 384 --data.tokenizer.max-length 8
  --model.image.width 16 --model.image.depth 1 --model.image.num-heads 2 --model.image.image-size 16
  --model.text.width 16 --model.text.depth 1 --model.text.num-heads 2 --model.embed-dim 8
  --optimizer.algorithm momentum --optimizer.warmup-steps 1
  --run.batch-size 16 --run.steps 2 --run.log-every 1 --run.no-tensorboard""".split()


def call(study, experiment, *arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    main(study, experiment, arguments=list(arguments))
  return stop.value.code
