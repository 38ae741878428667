"""What is wrong on a node, in plain words, and what to do about it.

Each thing looked at is a `finding`. `daemon` and `hosts` read containerd's files, `node` judges what an agent, a disk,
a clock and a cgroup say, and `asking` asks them.
"""
