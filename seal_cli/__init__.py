"""The command line, `seal`: a thin layer over `sealkit.client`, and the supervisor of the embedded stack."""
