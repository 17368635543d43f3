"""The speed report: floors, engine, other clients and whole loads on one machine, in one run, as table and picture."""
