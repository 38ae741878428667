"""A soak: real agents under random pulls and random faults, and then a look at whether anything was left behind.

`python -m soak --help` says how it is run; `story.py` what happens, `levels.py` what must be as before.
"""
