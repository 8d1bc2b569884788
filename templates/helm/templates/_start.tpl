{{- /* Volumes, and how a container starts: (root, service name, service) */ -}}
{{- define "cfscale.claim" -}}
accessModes: [{{ (index . 1).storage.accessMode }}]
{{- with (index . 1).storage.className | default (index . 0).Values.storage.className }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ (index . 1).storage.size }}
{{- end -}}

{{- define "cfscale.configFolder" -}}
{{- if eq . "loadbalancer" -}}/usr/local/etc/haproxy{{- else -}}/etc/cfscale{{- end -}}
{{- end -}}

{{- define "cfscale.databaseMounts" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- if and (index . 2).platform $root.Values.services.pooler }}
{{- if $root.Values.services.pooler.enabled }}
- name: database
  mountPath: /run/database
  readOnly: true
{{- end }}
{{- else if eq $name "pooler" }}
- name: database
  mountPath: /run/database
  readOnly: true
- name: pgbouncer
  mountPath: /run/pgbouncer
{{- end }}
{{- end -}}

{{- define "cfscale.databaseVolumes" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- if and (index . 2).platform $root.Values.services.pooler }}
{{- if $root.Values.services.pooler.enabled }}
- name: database
  secret:
    secretName: {{ include "cfscale.databaseSecret" $root }}
    defaultMode: 0440
    items:
      - {key: password, path: password}
{{- end }}
{{- else if eq $name "pooler" }}
- name: database
  secret:
    secretName: {{ include "cfscale.databaseSecret" $root }}
    defaultMode: 0440
- name: pgbouncer
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- end -}}

{{- /* The commands that need to read a password first run in a shell; all others are the image's own. */ -}}
{{- define "cfscale.start" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $it := index . 2 -}}
{{- $full := include "cfscale.fullname" $root -}}
{{- if has $name (list "queue" "memory" "cache") -}}
command: ["sh", "-ec"]
args:
  - |
    umask 077
    password=$(cat /run/secrets/queue_password)
    printf 'requirepass %s\nmasterauth %s\n' "$password" "$password" >/run/auth/auth.conf
    {{- if and (eq $name "cache") (gt (int64 $root.Values.valkey.cacheBytes) 0) }}
    set -- /etc/cfscale/valkey.conf --maxmemory {{ $root.Values.valkey.cacheBytes | int64 }}
    {{- else }}
    set -- /etc/cfscale/valkey.conf --maxmemory "$(( MEMORY_BYTES * {{ $root.Values.valkey.memoryPercent }} / 100 ))"
    {{- end }}
    {{- if eq $name "memory" }}
    set -- "$@" --cluster-announce-ip "$POD_IP" --cluster-announce-hostname "$HOSTNAME.{{ $full }}-{{ $name }}-pods.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}"
    {{- else if eq $name "queue" }}
    case "$HOSTNAME" in
      *-0) ;; # the first is the primary, the others follow it
      *) set -- "$@" --replicaof {{ $full }}-{{ $name }}-0.{{ $full }}-{{ $name }}-pods {{ $it.port }} ;;
    esac
    {{- end }}
    exec {{ include "cfscale.valkeyProgram" $it }}-server "$@"
{{- else if eq $name "pooler" -}}
command: ["sh", "-ec"]
args:
  - |
    umask 077
    cd /run/database
    printf '%s = host=%s port=%s dbname=%s\n' "{{ $root.Values.database.name }}" "$(cat host)" "$(cat port)" "$(cat dbname)" >/run/pgbouncer/databases.ini
    printf '"%s" "%s"\n' "$(cat username)" "$(cat password)" >/run/pgbouncer/userlist.txt
    exec pgbouncer /etc/cfscale/pgbouncer.ini
{{- else -}}
{{- with $it.args }}
args:
  {{- range . }}
  - {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}
{{- end -}}
