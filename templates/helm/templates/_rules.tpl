{{- /* Recorded series and alerts, in the form of Prometheus' rule files. */ -}}
{{- define "cfscale.rules" -}}
{{- $full := include "cfscale.fullname" . -}}
{{- $ns := .Release.Namespace -}}
{{- $m := .Values.monitoring -}}
groups:
  - name: {{ $full }}.recorded
    interval: {{ $m.serviceMonitor.intervalSeconds }}s
    rules:
      {{- range $name, $it := .Values.services }}
      {{- if and $it.enabled (include "cfscale.kind" (list $ $name)) }}
      {{- $pods := printf "namespace=%q,container=%q,pod=~%q" $ns $name (printf "%s-%s-.+" $full $name) }}
      - record: cfscale:cpu_utilisation:ratio
        expr: sum(rate(container_cpu_usage_seconds_total{ {{- $pods -}} }[1m])) / sum(kube_pod_container_resource_requests{ {{- $pods -}} ,resource="cpu"})
        labels: &{{ $name | replace "-" "_" }} {namespace: {{ $ns | quote }}, release: {{ $.Release.Name | quote }}, service: {{ $name | quote }}}
      - record: cfscale:memory_utilisation:ratio
        expr: sum(container_memory_working_set_bytes{ {{- $pods -}} }) / sum(kube_pod_container_resource_requests{ {{- $pods -}} ,resource="memory"})
        labels: *{{ $name | replace "-" "_" }}
      {{- if include "cfscale.autoscaled" (list $ $it) }}
      # a straight line through half an hour, prolonged
      - record: cfscale:cpu_utilisation:forecast
        expr: clamp_min(predict_linear(cfscale:cpu_utilisation:ratio{namespace={{ $ns | quote }},release={{ $.Release.Name | quote }},service={{ $name | quote }}}[30m], {{ $.Values.autoscaling.forecastSeconds }}), 0)
        labels: *{{ $name | replace "-" "_" }}
      {{- end }}
      {{- end }}
      {{- end }}
  - name: {{ $full }}.alerts
    rules:
      {{- $own := printf "namespace=%q,release=%q" $ns .Release.Name }}
      - alert: CfscaleCpuHigh
        expr: cfscale:cpu_utilisation:ratio{ {{- $own -}} } > {{ .Values.autoscaling.cpu.scaleUp }}
        for: 5m
        {{- include "cfscale.alert" (list . "CfscaleCpuHigh" "warning" "{{ $labels.service }} uses {{ $value | humanizePercentage }} of its CPU") | nindent 8 }}
      - alert: CfscaleCpuCritical
        expr: cfscale:cpu_utilisation:ratio{ {{- $own -}} } > {{ $m.rules.criticalRatio }}
        for: 1m
        {{- include "cfscale.alert" (list . "CfscaleCpuCritical" "critical" "{{ $labels.service }} uses {{ $value | humanizePercentage }} of its CPU") | nindent 8 }}
      - alert: CfscaleMemoryHigh
        expr: cfscale:memory_utilisation:ratio{ {{- $own -}} } > {{ .Values.autoscaling.memory.scaleUp }}
        for: 5m
        {{- include "cfscale.alert" (list . "CfscaleMemoryHigh" "warning" "{{ $labels.service }} uses {{ $value | humanizePercentage }} of its memory") | nindent 8 }}
      - alert: CfscaleMemoryCritical
        expr: cfscale:memory_utilisation:ratio{ {{- $own -}} } > {{ $m.rules.criticalRatio }}
        for: 1m
        {{- include "cfscale.alert" (list . "CfscaleMemoryCritical" "critical" "{{ $labels.service }} uses {{ $value | humanizePercentage }} of its memory") | nindent 8 }}
      - alert: CfscaleDiskFull
        expr: kubelet_volume_stats_used_bytes{namespace={{ $ns | quote }},persistentvolumeclaim=~"(.+-)?{{ $full }}-.+"} / kubelet_volume_stats_capacity_bytes > {{ $m.rules.diskRatio }}
        for: 5m
        {{- include "cfscale.alert" (list . "CfscaleDiskFull" "warning" "{{ $labels.persistentvolumeclaim }} is {{ $value | humanizePercentage }} full; a replica would add no disk to it") | nindent 8 }}
      - alert: CfscaleReplicasMissing
        expr: kube_deployment_status_replicas_available{namespace={{ $ns | quote }},deployment=~"{{ $full }}-.+"} < kube_deployment_spec_replicas or kube_statefulset_status_replicas_ready{namespace={{ $ns | quote }},statefulset=~"{{ $full }}-.+"} < kube_statefulset_replicas
        for: 10m
        {{- include "cfscale.alert" (list . "CfscaleReplicasMissing" "warning" "{{ $labels.deployment }}{{ $labels.statefulset }} runs {{ $value }} replicas, fewer than it should") | nindent 8 }}
      - alert: CfscaleBackendDown
        expr: max by (proxy) (haproxy_backend_active_servers{namespace={{ $ns | quote }},service={{ printf "%s-loadbalancer" $full | quote }}}) == 0
        for: 1m
        {{- include "cfscale.alert" (list . "CfscaleBackendDown" "critical" "the load balancer finds no healthy replica of {{ $labels.proxy }}") | nindent 8 }}
      {{- if ne .Values.autoscaling.engine "none" }}
      - alert: CfscaleAtMaximum
        expr: kube_horizontalpodautoscaler_status_desired_replicas{namespace={{ $ns | quote }},horizontalpodautoscaler=~"{{ $full }}-.+"} >= kube_horizontalpodautoscaler_spec_max_replicas
        for: 15m
        {{- include "cfscale.alert" (list . "CfscaleAtMaximum" "warning" "{{ $labels.horizontalpodautoscaler }} is at its maximum: plan for more") | nindent 8 }}
      {{- end }}
      {{- if .Values.database.backup.destinationPath }}
      - alert: CfscaleBackupOld
        expr: time() - max(cnpg_collector_last_available_backup_timestamp{namespace={{ $ns | quote }},pod=~"{{ $full }}-database-.+"}) > {{ int64 $m.rules.backupSeconds }}
        for: 10m
        {{- include "cfscale.alert" (list . "CfscaleBackupOld" "critical" "the latest backup is {{ $value | humanizeDuration }} old") | nindent 8 }}
      {{- end }}
      {{- with .Values.services.pooler }}
      {{- if .enabled }}
      - alert: CfscalePoolExhausted
        expr: sum(cnpg_pgbouncer_pools_cl_waiting{namespace={{ $ns | quote }},pod=~"{{ $full }}-pooler.+"}) > 0
        for: 5m
        {{- include "cfscale.alert" (list $ "CfscalePoolExhausted" "warning" "{{ $value }} clients wait for a connection to the database") | nindent 8 }}
      {{- end }}
      {{- end }}
{{- end -}}

{{- /* (root, alert, severity, summary) */ -}}
{{- define "cfscale.alert" -}}
labels:
  severity: {{ index . 2 }}
  release: {{ (index . 0).Release.Name | quote }}
annotations:
  summary: {{ index . 3 | quote }}
  runbook_url: {{ printf "%s#%s" (index . 0).Values.monitoring.rules.runbookUrl (lower (index . 1)) | quote }}
{{- end -}}

{{- define "cfscale.dashboard" -}}
{{- $own := printf "{namespace=%q,release=%q}" .Release.Namespace .Release.Name -}}
{{- $panels := list -}}
{{- range $i, $panel := list (list "CPU of the request" "cfscale:cpu_utilisation:ratio") (list "Memory of the request" "cfscale:memory_utilisation:ratio") (list "Forecast" "cfscale:cpu_utilisation:forecast") -}}
{{- $panels = append $panels (dict "id" (add1 $i) "type" "timeseries" "title" (index $panel 0) "gridPos" (dict "x" (mul $i 8) "y" 0 "w" 8 "h" 8) "fieldConfig" (dict "defaults" (dict "unit" "percentunit")) "targets" (list (dict "expr" (printf "%s%s" (index $panel 1) $own) "legendFormat" "{{service}}"))) -}}
{{- end -}}
{{- dict "title" (printf "cfscale %s" .Values.plan.name) "uid" (sha1sum (printf "%s/%s" .Release.Namespace .Release.Name)) "schemaVersion" 39 "refresh" "10s" "time" (dict "from" "now-6h" "to" "now") "panels" $panels | toPrettyJson -}}
{{- end -}}
