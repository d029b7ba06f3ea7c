"""`python -m spfem_dist.web`: the same as `spfem demo`."""

import sys

from spfem_dist.cli import main

sys.argv[1:1] = ["demo"]
main()
