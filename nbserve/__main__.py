"""`python -m nbserve`: the command line."""

from nbserve.cli import main

raise SystemExit(main())
