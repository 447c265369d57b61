"""Fakes that pass the same contract tests as the real adapters, for simulations and unit tests."""
