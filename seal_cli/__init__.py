"""The command line, `seal`: thin over `sealkit.client`, and the supervisor of the embedded stack."""
