"""A search of learning rate, weight decay and width for a classifier of digits: ASHA with random values, and TPE.

Li et al. 2020: of trials that begin with few steps, the best third goes on, so that most of the cost is spent on what
does well. The data and the classifier are those of ensembles_digits.py.

    python experiments/search_digits.py                                   (27 trials, random, three rungs)
    python experiments/search_digits.py --search.sampler tpe --search.rungs 1 --run.workdir runs/search_tpe
"""

import dataclasses
from pathlib import Path

from ensembles_digits import EXPERIMENT as DIGITS
from ensembles_digits import KINDS

from mmjax.search import Choice, LogUniform, Search, main

EXPERIMENT = dataclasses.replace(
  DIGITS, run=dataclasses.replace(DIGITS.run, workdir=Path("runs/search_digits"), steps=270, save_every=1000)
)
SEARCH = Search(
  space={
    "optimizer.learning_rate": LogUniform(1e-4, 1.0),
    "optimizer.weight_decay": LogUniform(1e-4, 1.0),
    "model.towers.image.width": Choice([8, 16, 32]),
  },
  kinds=KINDS,
)

if __name__ == "__main__":
  main(SEARCH, EXPERIMENT, description=__doc__)
