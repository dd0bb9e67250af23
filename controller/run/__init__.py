"""How a run goes: its rounds, the steps they are made of, and who drives it."""
