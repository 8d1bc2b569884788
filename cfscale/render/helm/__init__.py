"""A plan as a Helm chart: one call, plan and templates in, path and text of every file out.

    plan ─▶ fill ─▶ Values ─▶ values.yaml, values.schema.json, README.md ─▶ check ─▶ files
    templates/helm/templates ─────────────── as they stand ───────────────▶ files

The chart is a real one: its templates are static and know nothing of a plan, and its values are the plan. It works
by ``helm install`` alone.
"""

from cfscale.render.helm.chart import built, render
from cfscale.render.helm.losses import losses

__all__ = ["built", "losses", "render"]
