"""The embedded engine: replicas are local processes under a supervisor of ours.

    cli ─▶ client.ProcessEngine ──unix socket──▶ supervisor.Supervisor ─▶ shim ─▶ replica and all it starts
                    │                                  ├─▶ health checks, back-off, crash loops
                    └─▶ usage (/proc)                  └─▶ HAProxy's runtime API, where HAProxy is on the PATH

Linux only: it reads ``/proc`` and relies on subreapers. Limits of CPU and memory are measured against, not enforced.
"""

from cfscale.adapters.process.client import ProcessEngine

__all__ = ["ProcessEngine"]
