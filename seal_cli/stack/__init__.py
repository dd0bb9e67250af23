"""The embedded stack: Valkey and the four services as processes on this machine, with one data folder."""
