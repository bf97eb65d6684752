"""Light adapters: small networks that read a belief (or raw features) and a period's actions."""
