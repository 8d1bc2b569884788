"""The loops that join the core to adapters, through the Protocols declared in ``runtime.ports``."""
