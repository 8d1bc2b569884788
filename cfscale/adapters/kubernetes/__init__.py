"""The engine ``kubernetes``: ``helm`` installs and removes, the API server is asked what came of it.

    up     ─▶ helm upgrade --install --wait (the rendered chart) ─▶ every replica ready? else ActionError
    grow   ─▶ scale subresource ─▶ as many pods? else ActionError
    shrink ─▶ pod-deletion-cost on the victims ─▶ scale subresource ─▶ are they on their way out? else ActionError

Where an autoscaler of the cluster owns a count, cfscale does not touch it: two hands on one number fight.
"""

from cfscale.adapters.kubernetes.cluster import Cluster
from cfscale.adapters.kubernetes.engine import KubernetesEngine

__all__ = ["Cluster", "KubernetesEngine"]
