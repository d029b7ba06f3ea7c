"""A drawn, talking, emoting corpus whose truth is known. Everything in it is made by this package."""

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus, synthetic_split

#: What every rendered corpus's room exports (`corpora/rendered.py`), and the order of the landmarks, as an index of shards names it.
Corpus = SyntheticCorpus
LANDMARKS = "synthetic"

__all__ = ["LANDMARKS", "Corpus", "SyntheticCorpus", "synthetic_split"]
