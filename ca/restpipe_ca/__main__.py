"""`python -m restpipe_ca`."""

import sys

from restpipe_ca.cli import main

sys.exit(main())
