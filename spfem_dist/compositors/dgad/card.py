"""What DGAD's model card says."""

from spfem_dist.compositors.compositor import CompositorCard

CARD = CompositorCard(
    title="a compositor that puts an edited head back into its frame",
    about="A diffusion network that fills the hole of a face by the scene around it and the edited head, which may lie a little aside, be "
    "turned, or stand in another light, in the form of DGAD that this project calls {form}. It draws pictures of {size} x {size} pixels by {topology} "
    "landmarks and so is softer than a film's own pixels: where an edit fits its frame already, leave it out.",
)
