"""SSERD as published: what the authors' code computes, its defects included.

SSERD (Xu, Chen et al., ACM MM 2024), "Self-Supervised Emotion Representation Disentanglement for Speech-Preserving Facial Expression
Manipulation"; facts about the code, in our own words:

* A picture's code [18, 512] comes from an encoder of pSp's form; its first map and seven skips too, and are fused into a StyleGAN2 whose
  first layers are dilated (StyleGANEX's form). The mean code is added to the source's codes and not to the reference's.
* The emotion is a residual: cross-attention of the source's tokens over the reference's, then two transformer layers whose feed-forward
  part is one number wide. Tokens have no position.
* What the skips add is masked where there is an emotion and not where there is none: reconstruction and editing take different ways.
* The discriminator ends in a map of 1 pixel: at a nominal side of 1024 it takes pictures of 256.
* The contrast's cache is keyed by the source's actor, also for the reference of another person, and an item is left out as long as any
  emotion of its actor was never seen.
* The boundaries' directions have length 1 for each layer, so that a step of 15 is 63.6 long over 18 layers.
* The published trainers read options that they do not define, and do not start.
"""
