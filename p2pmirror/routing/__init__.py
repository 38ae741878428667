"""Who has it: the members of the cluster and what each of them says it holds."""
