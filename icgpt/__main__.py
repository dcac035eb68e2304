"""`python -m icgpt`, for where the script is not on the path."""

from icgpt.cli import main

main()
