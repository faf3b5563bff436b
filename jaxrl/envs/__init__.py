"""Environments: pure functions behind gymnax 1.0's interface. `registry.make` builds one by name."""
