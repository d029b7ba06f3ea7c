"""What SSERD's model card says."""

from spfem_dist.generators.card import GeneratorCard

CARD = GeneratorCard(
    title="a generator that adds an emotion to a picture's code",
    about="A StyleGAN2 of face crops with its encoder, and the residual that an emotion adds to a picture's code, in the form of SSERD that "
    "this project calls clean. It redraws crops of {size} x {size} pixels within the face that {topology} landmarks outline; every frame is "
    "drawn on its own, and what its codes do not hold is taken from the source. `spfem edit` edits whole clips and copies their sound.",
)
