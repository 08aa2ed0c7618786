"""`python -m sojourn` is the command `sojourn`."""

from sojourn.cli.main import run

if __name__ == "__main__":
    run()
