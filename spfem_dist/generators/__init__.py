"""What stage 2 trains, guided by frozen priors. NED is the first room; ICface and SSERD have a door here."""
