"""Several toy runs one after the other in the same processes: a start costs seconds, a toy run does not.

torchrun --nproc-per-node 2 tests/training/toy_many.py --name a --zero.stage 1 then --name b --zero.stage 2
"""

import sys
from itertools import groupby

from toy_pair import PairStage, pair
from toy_recipe import ToyStage, toy

from spfem_dist.training.launch import main

if __name__ == "__main__":
    for separator, words in groupby(sys.argv[1:], lambda word: word == "then"):
        arguments = list(words)
        if not separator:
            recipe = (pair, PairStage()) if arguments[0] == "pair" else (toy, ToyStage())
            try:
                main(*recipe, arguments[arguments[0] == "pair" :])
            except SystemExit as ended:  # stopped by the signal that the test asked for
                if ended.code != 130:
                    raise
