"""What p2pmirror costs, measured beside nginx and docker-registry on the same machine, in the same run.

`python -m benchmarks` (or `make bench`) prints a table and writes `latest.json`. A run passes through `__main__`, which
picks the groups and prints; `stage`, which builds the hosts with what runs on them; the groups themselves (`bulk`,
`answers`, `lookups`, `footprint`, `crowd`, `simulated`), which measure; and `rows`, which says what a figure is held
to. The clients are processes of their own (`load`), and the same for both sides.
"""
