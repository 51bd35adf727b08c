"""`python -m tidegate_schema`: the same command line where the console script is not on PATH."""

from tidegate_schema.cli import main

main()
