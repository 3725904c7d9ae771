"""``python -m archiver``: the command line, where the script is not on the path."""

from archiver.cli.main import main

main()
