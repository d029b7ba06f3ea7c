"""What STCCL-VD's model card says."""

from spfem_dist.priors.card import PriorCard

CARD = PriorCard(
    title="a metric that says whether two windows of one speaker say the same, place by place and step by step",
    about="Spatial-Temporal Coherent Correlation Learning (TPAMI 2026) by visual differences, form {form}: compares how each place differs from its neighbours and from itself a frame before in windows of "
    "faces of {size} x {size} pixels. Stage 2 asks it whether a generated window still says what the source says. It is no embedding "
    "and does not listen.",
    figures=("stccl_vd/right_window_face", "stccl_vd/right_window_mouth", "stccl_vd/time_face"),
)
