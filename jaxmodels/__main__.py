"""The command jaxmodels, and python -m jaxmodels."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:  # else an optax.py in the working folder would be imported
    folder = sys.path.pop(0)
    if __file__.startswith(os.path.join(folder, "")):  # jaxmodels itself lies there
        sys.path.append(folder)

from jaxmodels import cli, guard, hugepages


def main() -> int:
    """Runs one command of this process's own arguments and gives its exit status."""
    hugepages.restart()
    return guard.work(cli.main) if guard.stand(sys.argv[1:]) else cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
