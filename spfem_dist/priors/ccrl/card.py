"""What CCRL's model card says."""

from spfem_dist.priors.card import PriorCard

CARD = PriorCard(
    title="a prior that says whether two faces say the same thing",
    about="Contrastive Content Representation Learning (CDRL), form {form}: embeds a face crop of {size} x {size} pixels and the "
    "speech around it. Stage 2 asks it whether a generated face still says what the source says.",
    figures=("content/same_speech_auc", "content/same_speech_top1"),
)
