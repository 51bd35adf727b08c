"""What Tidegate costs, measured: `./run bench [PART…] [--json FILE]`.

One module a part, each with `rows(options) -> list[Row]`. A row compares a median with the median of a
baseline measured in the same rounds, so that a slow minute of the machine is in both.
"""
