"""A search of learning rate, weight decay and width for a classifier of digits: ASHA with random values, and TPE.

Li et al. 2020: of trials that begin with few steps, the best third goes on, so that most of the cost is spent on what
does well. The data and the classifier are those of ensembles_digits.py.

    python experiments/search_digits.py                                   (27 trials, random, three rungs)
    python experiments/search_digits.py --search.sampler tpe --search.rungs 1 --run.workdir runs/search_tpe

Found on 2026-11-30 with the learning rate alone (seed 0, 600 test digits, standard error about .013): of a grid of 13
rates from 1e-4 to 1, all trained for 270 steps, .046 is the best (.915; its neighbours .877, .892). 25 trials of ASHA
end with .031 (.895), within a factor of 2, and take .71 of the grid's steps. Half of them was the aim: six trials went
to the end, not three, as a trial goes on before later ones are there to compare it with. Other seeds, TPE and plain
random search have not been measured.
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
