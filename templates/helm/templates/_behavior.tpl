{{- /* How fast a count moves: (autoscaling, whether the cluster's HPA has tolerances of its own) */ -}}
{{- define "cfscale.behavior" -}}
{{- $as := index . 0 -}}{{- $tolerant := index . 1 -}}
behavior:
  scaleUp:
    stabilizationWindowSeconds: {{ $as.scaleUp.stabilizationWindowSeconds }}
    {{- if $tolerant }}
    # replicas are added above the threshold itself
    tolerance: 0
    {{- end }}
    selectPolicy: Min
    policies:
      - type: Percent
        value: {{ $as.scaleUp.percent }}
        periodSeconds: {{ $as.scaleUp.periodSeconds }}
      {{- if gt (int $as.scaleUp.pods) 0 }}
      - type: Pods
        value: {{ $as.scaleUp.pods }}
        periodSeconds: {{ $as.scaleUp.periodSeconds }}
      {{- end }}
  scaleDown:
    stabilizationWindowSeconds: {{ $as.scaleDown.stabilizationWindowSeconds }}
    {{- if $tolerant }}
    # the dead band: nothing shrinks before the usage is below the lower threshold
    tolerance: {{ include "cfscale.downTolerance" $as }}
    {{- end }}
    selectPolicy: Min
    policies:
      - type: Percent
        value: {{ $as.scaleDown.percent }}
        periodSeconds: {{ $as.scaleDown.periodSeconds }}
      {{- if gt (int $as.scaleDown.pods) 0 }}
      - type: Pods
        value: {{ $as.scaleDown.pods }}
        periodSeconds: {{ $as.scaleDown.periodSeconds }}
      {{- end }}
{{- end -}}

{{- /* An HPA has one tolerance for all metrics: the wider band is kept, so that neither resource shrinks too early. */ -}}
{{- define "cfscale.downTolerance" -}}
{{- $cpu := subf 1 (divf .cpu.scaleDown .cpu.scaleUp) -}}
{{- $memory := subf 1 (divf .memory.scaleDown .memory.scaleUp) -}}
{{- round (maxf $cpu $memory) 3 -}}
{{- end -}}
