"""A search over the settings of any recipe: Ray Tune starts trials, stops those that fall behind, and says which was best.

    python recipes/sweep.py cdrl_stage1 --cerl.enabled False --metric val/ccrl/contrast --space ccrl.optimizer.lr=loguniform:1e-4,1e-2
    python recipes/sweep.py cdrl_stage1 --cerl.enabled False --metric val/ccrl/contrast --trials 16 --local \\
        --space ccrl.optimizer.lr=loguniform:1e-4,1e-2 ccrl.temperature=uniform:0.05,0.3 ccrl.global_batch=choice:8,12,16
    python recipes/sweep.py cdrl_stage1 --cerl.enabled False --metric val/ccrl/contrast --scheduler pbt --trials 6 --patience 2 \\
        --space ccrl.optimizer.lr=loguniform:1e-4,1e-2
    ray job submit --working-dir . -- python recipes/sweep.py cdrl_stage1 --scaling.workers 4 --cerl.enabled False \\
        --metric val/ccrl/contrast --space ccrl.optimizer.lr=loguniform:1e-4,1e-2 ccrl.temperature=grid:0.07,0.15

Every flag of the recipe may be given and holds for all trials. The same command goes on where it was stopped.
"""

from spfem_dist.sweep.command import main

if __name__ == "__main__":
    main(__doc__)
