"""Measurements of the project: speed, faults, results and scaling, each beside its peers."""
