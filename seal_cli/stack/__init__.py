"""The embedded stack: Valkey and the four services as processes of this machine, under one data folder."""
