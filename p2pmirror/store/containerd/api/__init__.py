"""Messages of containerd's API, generated from `containerd.proto` (README.md tells how)."""
