"""What is written on a host so that its containerd asks the agent first, and how all of it is taken back.

In the order in which one reads it: `outline` finds the tables of a TOML text, `marks` puts in what is ours and takes it
out again, `hosts` and `daemon` are containerd's two files, `names` and `targets` its directories, `files`, `ledger` and
`changing` the disk, `containerd` the two commands.
"""
