"""What ICface's model card says."""

from spfem_dist.generators.card import GeneratorCard

CARD = GeneratorCard(
    title="a generator that takes the expression out of a face and puts action units in",
    about="A neutraliser and an animator of face crops, driven by action units found from landmarks, in the form of ICface that this "
    "project calls clean. It redraws crops of {size} x {size} pixels by {topology} landmarks, so what it cannot draw (fine detail of "
    "skin, teeth) is softer than the source; `spfem edit` finds the landmarks, edits whole clips and copies their sound.",
)
