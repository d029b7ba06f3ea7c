"""What STCCL-CM's model card says."""

from spfem_dist.priors.card import PriorCard

CARD = PriorCard(
    title="a metric that says whether two windows of one speaker say the same, place by place and step by step",
    about="Spatial-Temporal Coherent Correlation Learning (TPAMI 2026) by correlation matrices, form {form}: compares how each place correlates with its neighbours and with itself in the other frames in windows of "
    "faces of {size} x {size} pixels. Stage 2 asks it whether a generated window still says what the source says. It is no embedding "
    "and does not listen.",
    figures=("stccl_cm/right_window_face", "stccl_cm/right_window_mouth", "stccl_cm/time_face"),
)
