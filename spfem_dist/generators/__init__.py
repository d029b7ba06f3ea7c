"""What stage 2 trains, guided by frozen priors: each method is a package of its own, its room (see `generator.py`)."""

from spfem_dist.rooms import places

__path__.extend(places("generators"))
