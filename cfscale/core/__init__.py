"""The pure core: no clock, files, network, logging or printing. Values in, values out."""
