"""The simulated world: whole clusters of the agent's own code in one process, on virtual time, the same each time.

The tour: a scenario (`scenarios/`) is given a `world.Simulation`; `nodes` live in it on a virtual `clock`, all chance
is drawn from the seed, `schedule` brings the faults, `checks` say what must hold, and `trace` proves that two runs were
the same. `playing` is one run, `commands/` what a person types. README.md shows how a scenario is written.
"""
