"""`python -m mlflow_llamaduo` and the `llamaduo` command."""

import sys


def main() -> None:
    """Run the command line; where a dependency is missing, say how to get it.

    `mlflow run .` starts this from the clone in whatever environment MLflow is in, installed or not.
    """
    try:
        from mlflow_llamaduo.cli import cli

        cli()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mlflow_llamaduo"):
            raise
        sys.stderr.write(
            f"llamaduo: {error.name} is not installed in {sys.prefix}.\n"
            "Install the project there first: pip install -c constraints.txt -e .\n"
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
