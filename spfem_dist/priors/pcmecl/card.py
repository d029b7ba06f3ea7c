"""What PCMECL's model card says."""

from spfem_dist.priors.card import PriorCard

CARD = PriorCard(
    title="a prior that knows how a speaker shows an emotion",
    about="Personalised cross-modal emotional correlation learning (arXiv 2604.25255), our design of its abstract: embeds a face crop of "
    "{size} x {size} pixels beside one prompt for each of seven emotions, made for the speaker from neutral frames. Stage 2 asks it "
    "whether the change from the source to the generated face is the change from one prompt to the other.",
    figures=("pcmecl/accuracy", "pcmecl/gain_over_none", "pcmecl/gain_over_wrong"),
)
