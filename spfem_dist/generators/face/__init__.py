"""The face between recordings and generators: a linear model of landmarks, and the maps drawn from it."""
