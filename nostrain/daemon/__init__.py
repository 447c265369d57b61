"""The shell around `core`: composition, one effect runner for each port, feeds, control socket, metrics, systemd notification."""
