"""A rendered, talking, emoting corpus whose truth is known. Everything in it is made by this package."""

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus, synthetic_split

__all__ = ["SyntheticCorpus", "synthetic_split"]
