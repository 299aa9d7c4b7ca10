"""`python -m mlflow_llamaduo` and the `llamaduo` command."""

import sys


def main() -> None:
    """Run the command line; without the dependencies, say how to get them."""
    try:
        import click  # noqa: F401 - what every environment that can run us has
        import pydantic  # noqa: F401

        from mlflow_llamaduo.cli import cli
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"llamaduo: {error.name} is not installed in {sys.prefix}.\n"
            "Install the project there first: pip install -c constraints.txt -e .\n"
        )
        sys.exit(2)
    cli()


if __name__ == "__main__":
    main()
