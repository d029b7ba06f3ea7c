"""What ASCCL's model card says."""

from spfem_dist.priors.card import PriorCard

CARD = PriorCard(
    title="a metric that says whether two faces of one speaker say the same thing, place by place",
    about="Adaptive Spatial Coherent Correlation Learning (CVPR 2024), form {form}: compares how each place of a face of "
    "{size} x {size} pixels differs from its neighbours with the same place of another face. Stage 2 asks it whether a generated face "
    "still says what the source says. It is no embedding and does not listen.",
    figures=("asccl/right_frame_mouth", "asccl/right_frame_face", "asccl/place_top1"),
)
