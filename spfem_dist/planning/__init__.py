"""What a run on N workers would take, from constants measured on few: `spfem plan`."""
