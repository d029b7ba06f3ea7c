"""What puts an edited head back into its frame: each method is a package of its own, its room (see `compositor.py`)."""

from spfem_dist.rooms import places

__path__.extend(places("compositors"))
