"""The command jaxmodels, and python -m jaxmodels."""

import sys

from jaxmodels import cli, guard, hugepages


def main() -> int:
    """Runs one command of this process's own arguments and gives its exit status."""
    hugepages.restart()
    return guard.work(cli.main) if guard.stand(sys.argv[1:]) else cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
