"""The ports: what the daemon needs of the world, one file each. Adapters implement them; `testing/` has fakes that pass the same contracts."""
