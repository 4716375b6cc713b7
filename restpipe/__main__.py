"""`python -m restpipe`."""

from restpipe.cli import main

if __name__ == "__main__":
    main()
