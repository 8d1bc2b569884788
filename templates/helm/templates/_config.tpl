{{- /* The configuration of a component, empty where it has none: (root, service name, service) */ -}}
{{- define "cfscale.config" -}}
{{- $name := index . 1 -}}
{{- if eq $name "loadbalancer" -}}
{{- include "cfscale.haproxy" (index . 0) -}}
{{- else if has $name (list "queue" "memory" "cache") -}}
{{- include "cfscale.valkey" . -}}
{{- else if eq (printf "%s %s" $name (include "cfscale.kind" (list (index . 0) $name))) "pooler Deployment" -}}
{{- include "cfscale.pgbouncer" (index . 0) -}}
{{- end -}}
{{- end -}}

{{- define "cfscale.configFile" -}}
{{- if eq . "loadbalancer" -}}haproxy.cfg{{- else if eq . "pooler" -}}pgbouncer.ini{{- else -}}valkey.conf{{- end -}}
{{- end -}}

{{- define "cfscale.haproxy" -}}
{{- $root := . -}}{{- $own := .Values.services.loadbalancer -}}{{- $to := .Values.balancing -}}
global
    log stdout format raw local0 {{ $to.logLevel }}
    maxconn {{ int64 $to.connections }}
    nbthread {{ $to.threads }}
    hard-stop-after {{ max 1 (sub (int $own.stopGraceSeconds) 1) }}s

# Ready replicas stand in the DNS of headless Services: a new one is taken in without a reload.
resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold obsolete 1s
    hold nx 1s
    hold other 5s
    hold refused 5s
    hold timeout 5s

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option forwardfor
    timeout connect 2s
    timeout http-request 10s
    timeout http-keep-alive 15s
    timeout queue 10s
    # a task, or a stream of events, may be silent for minutes
    timeout client 300s
    timeout server 300s
    # a replica that cannot be reached is not the client's problem: the next one is asked
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response response-timeout 503

frontend public
    bind :{{ $own.port }}
    # answered by the balancer itself: it says that the balancer lives, and nothing of those behind it
    monitor-uri '{{ $own.health.path }}'
    # every request carries an id; one that the caller gave is kept
    unique-id-format %[uuid()]
    http-request set-header X-Correlation-ID %[unique-id] unless { req.hdr(X-Correlation-ID) -m found }
    http-request capture req.hdr(X-Correlation-ID) len 64
    {{- if $to.audit }}
    # who asked for what: the name comes from the single sign-on in front of this balancer
    http-request capture req.hdr(X-Forwarded-Email) len 128
    log-format '{"time":"%tr","client":"%ci","user":%[capture.req.hdr(1),json(utf8s)],"correlation_id":%[capture.req.hdr(0),json(utf8s)],"method":"%HM","path":%[capture.req.uri,json(utf8s)],"status":%ST,"backend":"%b","server":"%s","milliseconds":%Ta}'
    {{- end }}
    # what a caller can use compressed is, unless it is so small that nothing is gained
    compression algo gzip
    compression type text/html text/plain text/css text/event-stream application/json application/javascript application/xml
    compression minsize-res {{ int64 $to.compressFromBytes }}
    # what may have had an effect is not sent twice
    http-request disable-l7-retry unless METH_GET
    # the kind of a request says how it is spread, and a pool is named by the request
    acl spawn req.hdr(X-Request-Type) -m str agent-spawn
    acl task req.hdr(X-Request-Type) -m str task-execution
    acl swarm req.hdr(X-Request-Type) -m str swarm-coordination
    {{- range $length := untilStep 512 1 -1 }}
    {{- range $name, $it := $root.Values.services }}
    {{- range $prefix := $it.routing.prefixes }}
    {{- if and $it.enabled (eq (len $prefix) $length) }}
    {{- range $kind := splitList " " (include "cfscale.kinds" (list $name $it)) | compact }}
    use_backend {{ $name }}.{{ $kind }} if {{ $kind }} { path_beg -- '{{ $prefix }}' }
    {{- end }}
    use_backend {{ $name }} if { path_beg -- '{{ $prefix }}' }
    {{- end }}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- range $name, $it := $root.Values.services }}
    {{- if and $it.enabled (hasPrefix "agents-" $name) }}
    use_backend {{ $name }} if { req.hdr(X-Agent-Type) -m str {{ trimPrefix "agents-" $name }} }
    {{- if eq $name "agents-parallel" }}
    use_backend {{ $name }} if { req.hdr(X-Task-Type) -m str parallel }
    {{- else if eq $name "agents-expert" }}
    use_backend {{ $name }} if { req.hdr(X-Task-Complexity) -m str high }
    {{- end }}
    {{- end }}
    {{- end }}
    {{- range $name, $it := $root.Values.services }}
    {{- if and $it.enabled (has "/" $it.routing.prefixes) }}
    {{- range $kind := splitList " " (include "cfscale.kinds" (list $name $it)) | compact }}
    use_backend {{ $name }}.{{ $kind }} if {{ $kind }}
    {{- end }}
    default_backend {{ $name }}
    {{- end }}
    {{- end }}

# Reached by Prometheus alone: the network policy lets nobody else in.
frontend monitor
    bind :8404
    option dontlog-normal
    http-request use-service prometheus-exporter if { path /metrics }
{{- range $name, $it := $root.Values.services }}
{{- if and $it.enabled $it.routing.prefixes }}
{{- range $kind := prepend (splitList " " (include "cfscale.kinds" (list $name $it)) | compact) "" }}
{{- $spread := get (dict "" $to.algorithm "spawn" "roundrobin" "task" "leastconn" "swarm" "hash") $kind }}
{{- if $it.routing.oneWriter }}{{ $spread = "one" }}{{ end }}

backend {{ $name }}{{ with $kind }}.{{ . }}{{ end }}
    {{- if eq $spread "one" }}
    # the replicas share files that only one may write: every balancer picks the same one, another once it is down
    balance hash str(one)
    hash-type consistent
    {{- else if eq $spread "hash" }}
    # all that concerns one swarm meets at one replica, whichever balancer it comes through
    balance hash req.hdr(X-Swarm-Id)
    hash-type consistent
    {{- else }}
    balance {{ $spread }}
    {{- end }}
    timeout check {{ $it.health.timeoutSeconds }}s
    {{- if has $it.health.kind (list "http" "jsonrpc") }}
    option httpchk
    http-check send meth GET uri '{{ $it.health.path }}' ver HTTP/1.1 hdr Host {{ $name }}
    http-check expect rstatus ^[23]
    {{- end }}
    {{- with $it.routing.stickyHeader }}
    # a session lives in the memory of the replica that opened it
    stick-table type string len 128 size 100k expire {{ int64 $to.sessionSeconds }}s
    stick match req.hdr({{ . }})
    stick store-response res.hdr({{ . }})
    {{- end }}
    # a replica that answers with errors ten times running is taken out until its checks pass again; a new one is used once
    # it has passed its first
    default-server check init-state down inter {{ $it.health.periodSeconds }}s fastinter 1s downinter 1s fall {{ $it.health.fall }} rise {{ $it.health.rise }}{{ with $it.routing.connections }} maxconn {{ int64 . }}{{ end }} observe layer7 error-limit 10 on-error mark-down{{ if not (has $spread (list "one" "hash")) }} slowstart 10s{{ end }}
    server-template {{ $name }} {{ max 1 (int $it.maxReplicas) (int $it.replicas) }} {{ include "cfscale.fullname" $root }}-{{ $name }}-pods.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}:{{ $it.port }} resolvers cluster resolve-prefer ipv4 init-addr none{{ if has $spread (list "one" "hash") }} hash-key addr{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{ end -}}

{{- /* The kinds of requests that are spread in ways of their own: (service name, service) */ -}}
{{- define "cfscale.kinds" -}}
{{- if not (or (index . 1).routing.oneWriter (hasPrefix "agents-" (index . 0))) -}}spawn task swarm{{- end -}}
{{- end -}}

{{- define "cfscale.valkey" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $it := index . 2 -}}
{{- $to := $root.Values.valkey -}}
bind * -::*
port {{ $it.port }}
protected-mode yes
# written at the start from the Secret, on a disk that is memory
include /run/auth/auth.conf
maxclients {{ int64 $to.connections }}
tcp-keepalive 60
timeout 0
dir /data
maxmemory-policy {{ if eq $name "cache" }}allkeys-lru{{ else }}noeviction{{ end }}
{{- if eq $name "cache" }}
# nothing of a cache outlives it
appendonly no
save ""
{{- else }}
# what must not be lost: full memory refuses writes instead of evicting, and the log is synced every second
appendonly yes
appendfsync everysec
save 3600 1 300 100 60 10000
{{- end }}
{{- if eq $name "memory" }}
cluster-enabled yes
cluster-config-file /data/nodes.conf
cluster-node-timeout 15000
cluster-migration-barrier 1
cluster-require-full-coverage yes
cluster-allow-reads-when-down yes
cluster-preferred-endpoint-type hostname
{{- end }}
{{ end -}}

{{- define "cfscale.pgbouncer" -}}
{{- $to := .Values.database -}}{{- $own := .Values.services.pooler -}}
[databases]
; host and account come from the Secret when the pod starts
%include /run/pgbouncer/databases.ini

[pgbouncer]
listen_addr = *
listen_port = {{ $own.port }}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /run/pgbouncer/userlist.txt
pool_mode = {{ $to.pool.mode }}
min_pool_size = {{ $to.pool.minSize }}
default_pool_size = {{ $to.pool.maxSize }}
max_db_connections = {{ $to.pool.maxSize }}
max_client_conn = {{ int64 .Values.balancing.connections }}
max_prepared_statements = 200
query_wait_timeout = {{ $to.pool.waitSeconds }}
server_connect_timeout = {{ $to.pool.connectSeconds }}
server_tls_sslmode = require
ignore_startup_parameters = extra_float_digits
{{ end -}}

{{- /* Where a service may connect to: (root, service name) */ -}}
{{- define "cfscale.egress" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $np := $root.Values.networkPolicy -}}
{{- range $target := index $np.edges $name }}
{{- $to := index $root.Values.services $target }}
{{- if and $to $to.enabled }}
- to:
    - podSelector:
        matchLabels:
          {{- include "cfscale.selector" (list $root $target) | nindent 10 }}
  ports:
    - {port: {{ $to.port }}, protocol: TCP}
    {{- if eq $target "memory" }}
    - {port: {{ add $to.port 10000 }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}
{{- if has $name $np.internet }}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: {{ toJson $np.privateRanges }}
  ports:
    - {port: 443, protocol: TCP}
{{- end }}
{{- if and (eq $name "pooler") (eq $root.Values.database.mode "external") }}
- to:
    - ipBlock:
        cidr: {{ $root.Values.database.external.cidr }}
  ports:
    - {port: {{ $root.Values.database.external.port }}, protocol: TCP}
{{- end }}
{{- if and (has $name (list "database" "pooler")) (eq $root.Values.database.mode "cloudnative-pg") }}
# instances tell the API server who is the primary, and write backups to the object store
- ports:
    - {port: 443, protocol: TCP}
    - {port: 6443, protocol: TCP}
{{- end }}
{{- end -}}
