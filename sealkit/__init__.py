"""The one package that every SEAL service shares: types, domains, backends, rpc, queue, store and client."""
