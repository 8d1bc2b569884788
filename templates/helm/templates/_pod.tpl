{{- /* The parts of a pod. Every pod meets the restricted Pod Security Standard. */ -}}
{{- define "cfscale.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cfscale.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: ["ALL"]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cfscale.resources" -}}
requests:
  {{- toYaml (index . 1).requests | nindent 2 }}
limits:
  {{- with (index . 1).limits.memory }}
  memory: {{ . | quote }}
  {{- end }}
  ephemeral-storage: {{ index (index . 1).limits "ephemeral-storage" | quote }}
  {{- if and (index . 0).Values.cpuLimits.enabled (index . 1).limits.cpu }}
  cpu: {{ (index . 1).limits.cpu | quote }}
  {{- end }}
{{- end -}}

{{- /* The first question waits for the start, the second decides about traffic, the third about a restart: it asks for
       no more than a connection, so that a busy replica is not killed for being busy. */ -}}
{{- define "cfscale.probes" -}}
{{- $health := .health -}}
{{- if ne $health.kind "none" }}
startupProbe:
  {{- include "cfscale.question" . | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: {{ $health.timeoutSeconds }}
  failureThreshold: {{ $health.startupFailures }}
readinessProbe:
  {{- include "cfscale.question" . | nindent 2 }}
  periodSeconds: {{ $health.periodSeconds }}
  timeoutSeconds: {{ $health.timeoutSeconds }}
  successThreshold: {{ $health.rise }}
  failureThreshold: {{ $health.fall }}
livenessProbe:
  tcpSocket:
    port: main
  periodSeconds: {{ $health.periodSeconds }}
  timeoutSeconds: {{ $health.timeoutSeconds }}
  failureThreshold: {{ $health.livenessFailures }}
{{- end }}
{{- end -}}

{{- define "cfscale.question" -}}
{{- if has .health.kind (list "http" "jsonrpc") -}}
httpGet:
  path: {{ .health.path | quote }}
  port: main
{{- else if eq .health.kind "redis" -}}
exec:
  command: ["sh", "-c", 'test "$(REDISCLI_AUTH=$(cat /run/secrets/queue_password) $0-cli -h 127.0.0.1 -p {{ .port }} ping)" = PONG', {{ include "cfscale.valkeyProgram" . | quote }}]
{{- else -}}
tcpSocket:
  port: main
{{- end -}}
{{- end -}}

{{- define "cfscale.valkeyProgram" -}}
{{- if regexMatch "(^|/)redis$" .image.repository -}}redis{{- else -}}valkey{{- end -}}
{{- end -}}

{{- /* Where pods go: (root, service name, service) */ -}}
{{- define "cfscale.placement" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $it := index . 2 -}}
{{- $stateful := eq (include "cfscale.kind" (list $root $name)) "StatefulSet" -}}
topologySpreadConstraints:
  {{- $spreads := list (list "topology.kubernetes.io/zone" $root.Values.availability.zones) (list "kubernetes.io/hostname" $root.Values.availability.hosts) }}
  {{- if $root.Values.availability.regions }}
  {{- $spreads = prepend $spreads (list "topology.kubernetes.io/region" (dict "required" false "minDomains" 0)) }}
  {{- end }}
  {{- range $spreads }}
  - topologyKey: {{ index . 0 }}
    maxSkew: 1
    {{- if (index . 1).required }}
    whenUnsatisfiable: DoNotSchedule
    {{- if gt (int (index . 1).minDomains) 0 }}
    minDomains: {{ (index . 1).minDomains }}
    {{- end }}
    {{- else }}
    whenUnsatisfiable: ScheduleAnyway
    {{- end }}
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "cfscale.selector" (list $root $name) | nindent 8 }}
    matchLabelKeys: [{{ if $stateful }}controller-revision-hash{{ else }}pod-template-hash{{ end }}]
  {{- end }}
affinity:
  {{- if $it.affinity }}
  {{- toYaml $it.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "cfscale.selector" (list $root $name) | nindent 14 }}
  {{- end }}
{{- with $it.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $it.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $it.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* What all pods have in common: (root, user) */ -}}
{{- define "cfscale.podDefaults" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "cfscale.serviceAccountName" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- if not $root.Values.security.hostUsers }}
hostUsers: false
{{- end }}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "cfscale.podSecurity" (index . 1) | nindent 2 }}
{{- end -}}

{{- /* Labels and annotations of a service's pods: (root, service name, service) */ -}}
{{- define "cfscale.podMetadata" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $it := index . 2 -}}
labels:
  {{- include "cfscale.labels" (list $root $name) | nindent 2 }}
  {{- if eq $root.Values.security.mesh "istio" }}
  sidecar.istio.io/inject: "true"
  {{- end }}
  {{- with $it.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  cfscale.dev/service: {{ $name }}
  {{- with include "cfscale.config" (list $root $name $it) }}
  checksum/config: {{ sha256sum . }}
  {{- end }}
  {{- if eq $root.Values.security.mesh "linkerd" }}
  linkerd.io/inject: enabled
  config.linkerd.io/default-inbound-policy: all-authenticated
  {{- end }}
  {{- with $root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $it.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* Variables: the platform's own know where the others are; passwords come as files or from Secrets. (root, service name, service) */ -}}
{{- define "cfscale.environment" -}}
{{- $root := index . 0 -}}{{- $it := index . 2 -}}
{{- $services := $root.Values.services -}}
{{- if $it.platform }}
{{- $full := include "cfscale.fullname" $root }}
{{- range $part, $prefix := dict "queue" "CFN_REDIS" "cache" "CFN_CACHE" }}
{{- with index $services $part }}
{{- if .enabled }}
- name: {{ $prefix }}_HOST
  value: {{ $full }}-{{ $part }}
- name: {{ $prefix }}_PORT
  value: {{ .port | quote }}
- name: {{ $prefix }}_PASSWORD_FILE
  value: /run/secrets/queue_password
{{- end }}
{{- end }}
{{- end }}
{{- with $services.memory }}
{{- if .enabled }}
{{- $nodes := list }}
{{- range $i := until (int .replicas) }}
{{- $nodes = append $nodes (printf "%s-memory-%d.%s-memory-pods:%d" $full $i $full (int $services.memory.port)) }}
{{- end }}
- name: CFN_MEMORY_NODES
  value: {{ join "," $nodes }}
- name: CFN_MEMORY_PASSWORD_FILE
  value: /run/secrets/queue_password
{{- end }}
{{- end }}
{{- with $services.pooler }}
{{- if .enabled }}
- name: CFN_DATABASE_HOST
  value: {{ $full }}-pooler
{{- if and $root.Values.database.readPool (eq $root.Values.database.mode "cloudnative-pg") }}
- name: CFN_DATABASE_READ_HOST
  value: {{ $full }}-pooler-read
{{- end }}
- name: CFN_DATABASE_PORT
  value: {{ .port | quote }}
- name: CFN_DATABASE_USER
  value: {{ $root.Values.database.name | quote }}
- name: CFN_DATABASE_NAME
  value: {{ $root.Values.database.name | quote }}
- name: CFN_DATABASE_PASSWORD_FILE
  value: /run/database/password
{{- end }}
{{- end }}
- name: PORT
  value: {{ $it.port | quote }}
{{- end }}
{{- if has (index . 1) (list "queue" "memory" "cache") }}
- name: MEMORY_BYTES
  valueFrom:
    resourceFieldRef:
      containerName: {{ index . 1 }}
      resource: limits.memory
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end }}
{{- range $name, $value := $it.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}
