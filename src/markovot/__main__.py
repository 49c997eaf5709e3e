"""`python -m markovot`: the command line."""

from markovot.cli import main

if __name__ == "__main__":
    main()
