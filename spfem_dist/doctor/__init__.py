"""`spfem doctor`: look at a cluster before a run does."""
