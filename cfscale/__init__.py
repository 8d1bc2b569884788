"""cfscale: plan, render, run, scale and probe deployments of agent-orchestration platforms."""

__version__ = "0.1.0"
