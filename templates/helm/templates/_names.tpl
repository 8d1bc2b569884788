{{- /* Names, labels, images. Nothing here draws lots, looks at the clock or asks the cluster for objects. */ -}}
{{- define "cfscale.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What identifies the pods of a service and never changes: (root, service name). */ -}}
{{- define "cfscale.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "cfscale.labels" -}}
{{- $root := index . 0 -}}
{{ include "cfscale.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ $root.Values.plan.name | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
cfscale.dev/tier: {{ $root.Values.plan.tier }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* metadata of an object: (root, service name, name of the object, more labels or nothing) */ -}}
{{- define "cfscale.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "cfscale.labels" (list $root (index . 1)) | nindent 2 }}
  {{- if gt (len .) 3 }}
  {{- with index . 3 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- with $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cfscale.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else if $image.tag }}:{{ $image.tag }}{{ end -}}
{{- end -}}

{{- define "cfscale.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "cfscale.fullname" .) -}}
{{- end -}}

{{- define "cfscale.secretName" -}}
{{- .Values.auth.existingSecret | default (printf "%s-auth" (include "cfscale.fullname" .)) -}}
{{- end -}}

{{- /* The Secret with the account of the database: the operator's, or the operator of this chart's own. */ -}}
{{- define "cfscale.databaseSecret" -}}
{{- if eq .Values.database.mode "external" -}}
{{- required "database.external.secret: name a Secret with host, port, dbname, username and password" .Values.database.external.secret -}}
{{- else -}}
{{- printf "%s-database-app" (include "cfscale.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- /* yes where the service has a number that something else moves: (root, service) */ -}}
{{- define "cfscale.autoscaled" -}}
{{- if and (ne (index . 0).Values.autoscaling.engine "none") (lt (int (index . 1).minReplicas) (int (index . 1).maxReplicas)) -}}yes{{- end -}}
{{- end -}}

{{- /* The kind of the workload that runs a service: empty where an operator does. (root, service name) */ -}}
{{- define "cfscale.kind" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- $operated := and (has $name (list "database" "pooler")) (eq $root.Values.database.mode "cloudnative-pg") -}}
{{- if or $operated (eq $name "database") -}}
{{- else if has $name (list "queue" "memory" "cache") -}}StatefulSet
{{- else -}}Deployment
{{- end -}}
{{- end -}}

{{- /* Fails where a cluster answers and lacks an API; a chart that is only rendered has none to ask. (root, API, why and what to do) */ -}}
{{- define "cfscale.needs" -}}
{{- $versions := (index . 0).Capabilities.APIVersions -}}
{{- if and ($versions.Has "v1/Pod") (not ($versions.Has (index . 1))) -}}
{{- fail (printf "\n\nThis cluster does not know %s: %s\n" (index . 1) (index . 2)) -}}
{{- end -}}
{{- end -}}

{{- /* yes where an API that is a convenience may be used: it is there, or there is no cluster to ask. (root, API) */ -}}
{{- define "cfscale.knows" -}}
{{- $versions := (index . 0).Capabilities.APIVersions -}}
{{- if or ($versions.Has (index . 1)) (not ($versions.Has "v1/Pod")) -}}yes{{- end -}}
{{- end -}}

{{- /* The service that requests from outside come to: the load balancer, or where there is none the coordinator. */ -}}
{{- define "cfscale.front" -}}
{{- $front := "coordinator" -}}
{{- with .Values.services.loadbalancer -}}{{- if .enabled -}}{{- $front = "loadbalancer" -}}{{- end -}}{{- end -}}
{{- $front -}}
{{- end -}}
