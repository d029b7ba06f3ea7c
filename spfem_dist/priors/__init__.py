"""Representations that learn in stage 1 and supervise in stage 2. Each kind is a package here (see `priors.prior`)."""

from spfem_dist.rooms import places

__path__.extend(places("priors"))
