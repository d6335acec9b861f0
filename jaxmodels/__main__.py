"""python -m jaxmodels."""

from jaxmodels.cli import main

raise SystemExit(main())
