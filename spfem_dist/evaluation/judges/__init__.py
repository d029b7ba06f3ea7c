"""Networks that judge generated faces: trained on the corpus, and independent of the priors that guide a generator."""
