"""The command jaxmodels, and python -m jaxmodels."""

from jaxmodels import cli, hugepages


def main() -> int:
    """Runs one command of this process's own arguments and gives its exit status."""
    hugepages.restart()
    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
