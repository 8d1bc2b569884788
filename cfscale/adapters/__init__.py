"""Everything outside: one module per outside thing. Adapters translate errors and decide nothing."""
