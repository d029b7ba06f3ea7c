"""The face between recordings and generators: a linear model of landmarks and the maps drawn from it, and a 3-D face of 52 named units."""
