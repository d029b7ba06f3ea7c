"""What CERL's model card says."""

from spfem_dist.priors.card import PriorCard

CARD = PriorCard(
    title="a prior that says which emotion a face shows",
    about="Contrastive Emotion Representation Learning (CDRL), form {form}: embeds a face crop of {size} x {size} pixels beside one "
    "prior for each of seven emotions. Stage 2 asks it whether a generated face shows the emotion that was wanted.",
    figures=("emotion/accuracy",),
)
