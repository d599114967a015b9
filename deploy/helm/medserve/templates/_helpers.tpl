{{- define "medserve.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "medserve.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: medserve
{{- end }}

{{- /* Selects the pods that build models, for kubectl: a pod without the container that is asked for ends `kubectl logs`. */ -}}
{{- define "medserve.builders" -}}
{{- $components := eq .Values.mode "kuberay" | ternary (keys .Values.pools | sortAlpha) (list "standalone") -}}
app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component in ({{ join "," $components }})
{{- end }}

{{- /* Labels of an object. */ -}}
{{- define "medserve.labels" -}}
{{ include "medserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Labels of a pod: (dict "root" $ "component" "router"). No version among them: it would replace the cluster by itself. */ -}}
{{- define "medserve.podLabels" -}}
{{ include "medserve.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "medserve.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "medserve.tritonImage" -}}
{{- $image := eq .Values.processor "gpu" | ternary .Values.image.triton .Values.image.serving -}}
image: {{ include "medserve.image" (dict "root" . "image" $image) }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{- define "medserve.servingImage" -}}
image: {{ include "medserve.image" (dict "root" . "image" .Values.image.serving) }}
imagePullPolicy: {{ .Values.image.serving.pullPolicy }}
{{- end }}

{{- define "medserve.region" -}}medserve_features{{- end }}

{{- /* The settings tree: the user's, and over it what the chart decides. */ -}}
{{- define "medserve.settings" -}}
{{- $tree := deepCopy .Values.settings -}}
{{- $apart := eq .Values.mode "kuberay" -}}
{{- $_ := set $tree "home" "/run/medserve/home" -}}
{{- $_ := set $tree "shape" ($apart | ternary "apart" "together") -}}
{{- $_ := set $tree "http" (mergeOverwrite (dict) (get $tree "http" | default dict) (dict "host" "0.0.0.0" "port" 8000)) -}}
{{- $_ := set $tree "grpc" (mergeOverwrite (dict) (get $tree "grpc" | default dict) (dict "port" 9000)) -}}
{{- $_ := set $tree "triton" (mergeOverwrite (dict) (get $tree "triton" | default dict) (dict "address" "127.0.0.1:8001")) -}}
{{- $_ := set $tree "features" (mergeOverwrite (dict) (get $tree "features" | default dict) (dict "region" (include "medserve.region" .))) -}}
{{- $_ := set $tree "logs" (mergeOverwrite (dict "to" "stderr") (get $tree "logs" | default dict)) -}}
{{- if .Values.volumeJobs.existingClaim -}}
{{- $_ := set $tree "volumes" (mergeOverwrite (dict) (get $tree "volumes" | default dict) (dict "spool" "/volume-jobs/spool")) -}}
{{- end -}}
{{- $path := $apart | ternary "/models/published" "/run/medserve/repository" -}}
{{- $_ := set $tree "repository" (mergeOverwrite (dict) (get $tree "repository" | default dict) (dict "path" $path)) -}}
{{- if $apart -}}
{{- $_ := set $tree "router" (mergeOverwrite (dict) (get $tree "router" | default dict) (dict "replicas" .Values.router.replicas "resources" (dict "router" 1))) -}}
{{- $pools := get $tree "pools" | default dict -}}
{{- range $name, $pool := .Values.pools -}}
{{- $own := dict "replicas" (mul $pool.pods.min $pool.replicasPerPod) -}}
{{- $mine := get $pools $name | default dict -}}
{{- if include "medserve.autoscaled" $mine -}}
{{- $_ := set $own "surge_percent" 0 -}}
{{- end -}}
{{- $_ := set $pools $name (mergeOverwrite $own $mine (dict "resources" (dict $name 1))) -}}
{{- end -}}
{{- $_ := set $tree "pools" $pools -}}
{{- end -}}
{{ toYaml $tree }}
{{- end }}

{{- /* "yes" where Ray Serve's autoscaler decides on a pool's replicas: of the pool's settings. */ -}}
{{- define "medserve.autoscaled" -}}
{{- if gt (dig "autoscale" "max_replicas" 0 . | int64) 0 -}}yes{{- end -}}
{{- end }}

{{- /*
Replicas that a pod offers room for: (dict "root" $ "name" pool "pool" values). Twice what it has, so that in an update the new one starts
before the old one stops; not where pods come with demand, for which spare room would stand in.
*/ -}}
{{- define "medserve.room" -}}
{{- $mine := dig "pools" .name dict (deepCopy .root.Values.settings) -}}
{{- mul .pool.replicasPerPod (ternary 1 2 (eq (include "medserve.autoscaled" $mine) "yes")) -}}
{{- end }}

{{- /* Bytes of a Kubernetes quantity of memory. */ -}}
{{- define "medserve.bytes" -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[KMGT]i$" (toString .) -}}
{{- if $unit -}}
{{ mulf (trimSuffix $unit (toString .) | float64) (get $units $unit) | int64 }}
{{- else -}}
{{ float64 . | int64 }}
{{- end -}}
{{- end }}

{{- /* Bytes of /dev/shm: (dict "root" $ "features" bool "objectStore" bool). */ -}}
{{- define "medserve.shmBytes" -}}
{{- $budget := dig "features" "budget_bytes" 536870912 (deepCopy .root.Values.settings) -}}
{{- add (.features | ternary $budget 0 | int64) (int64 .root.Values.sharedMemory.tritonBytes) (int64 .root.Values.sharedMemory.objectStoreBytes) -}}
{{- end }}

{{- define "medserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "medserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* What every pod's spec begins with: (dict "root" $ "component" "router" "placed" values-with-nodeSelector "token" false). */ -}}
{{- define "medserve.podHead" -}}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
shareProcessNamespace: true
terminationGracePeriodSeconds: {{ add .root.Values.drain.timeoutSeconds 30 }}
securityContext:
  {{- include "medserve.podSecurity" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .root.Values.priorityClass.create .root.Values.priorityClass.name }}
priorityClassName: {{ .root.Values.priorityClass.name | default (include "medserve.fullname" .root) }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ .root.Values.topologySpread.topologyKey }}
    whenUnsatisfiable: {{ .root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "medserve.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- with .placed.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .placed.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .placed.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "medserve.preStop" -}}
preStop:
  exec:
    command: [medserve, node, drain, --timeout, {{ .Values.drain.timeoutSeconds | quote }}]
{{- end }}

{{- define "medserve.claim" -}}
{{ .Values.models.cache.existingClaim | default (printf "%s-models" (include "medserve.fullname" .)) }}
{{- end }}

{{- /* Volumes: (dict "root" $ "shmBytes" n). */ -}}
{{- define "medserve.volumes" -}}
- name: tmp
  emptyDir: {}
- name: run
  emptyDir: {}
- name: settings
  configMap: {name: {{ include "medserve.fullname" .root }}-settings}
- name: models
  persistentVolumeClaim: {claimName: {{ include "medserve.claim" .root }}}
- name: dev-shm
  emptyDir: {medium: Memory, sizeLimit: {{ .shmBytes | quote }}}
{{- end }}

{{- define "medserve.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: run, mountPath: /run/medserve}
- {name: settings, mountPath: /etc/medserve, readOnly: true}
- {name: models, mountPath: /models, readOnly: true}
- {name: dev-shm, mountPath: /dev/shm}
{{- end }}

{{- /* The folder of volume jobs that all routers share, where a claim is named. */ -}}
{{- define "medserve.spoolVolume" -}}
{{- with .Values.volumeJobs.existingClaim -}}
- name: volume-jobs
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end }}

{{- define "medserve.spoolMount" -}}
{{- if .Values.volumeJobs.existingClaim -}}
- {name: volume-jobs, mountPath: /volume-jobs}
{{- end }}
{{- end }}

{{- define "medserve.keySecret" -}}
{{ .Values.triton.keySecret.name | default (printf "%s-triton" (include "medserve.fullname" .)) }}
{{- end }}

{{- define "medserve.keyEnv" -}}
- name: MEDSERVE_TRITON__KEY
  valueFrom: {secretKeyRef: {name: {{ include "medserve.keySecret" . }}, key: {{ .Values.triton.keySecret.key }}}}
{{- end }}

{{- /* Environment of a container that reads settings. */ -}}
{{- define "medserve.env" -}}
- {name: HOME, value: /tmp}
- {name: MEDSERVE_CONFIG, value: /etc/medserve/settings.toml}
- {name: PROMETHEUS_MULTIPROC_DIR, value: /run/medserve/metrics}
{{- range $tenant, $ref := .Values.auth.tokens }}
- name: MEDSERVE_AUTH__TOKENS__{{ upper $tenant }}
  valueFrom: {secretKeyRef: {name: {{ $ref.secretName }}, key: {{ $ref.secretKey }}}}
{{- end }}
{{- end }}

{{- /* Environment of a Ray container: Ray Serve's optimised modes (docs/decisions/0003) with paths that a read-only root allows. */ -}}
{{- define "medserve.rayEnv" -}}
{{ include "medserve.env" . }}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_HAPROXY_CONFIG_FILE_LOC, value: /run/medserve/h.cfg}
- {name: RAY_SERVE_HAPROXY_SOCKET_PATH, value: /run/medserve/h.sock}
- {name: RAY_SERVE_HAPROXY_SERVER_STATE_BASE, value: /run/medserve}
- {name: RAY_SERVE_HAPROXY_SERVER_STATE_FILE, value: /run/medserve/h.state}
- {name: RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH, value: /run/medserve/m.sock}
{{- /* Its access log has every URL as it was sent: a socket that nobody reads. */}}
- {name: RAY_SERVE_HAPROXY_LOG_TARGET, value: /run/medserve/nobody}
{{- /* A connection that a replica closes as a call comes in: the call goes to another one, where it fits HAProxy's buffer. */}}
- {name: RAY_SERVE_HAPROXY_RETRY_ON, value: conn-failure empty-response}
{{- /* Of HTTP/2, so much of a body may be under way before its reader says to go on (serving/local/ray.py). */}}
- {name: RAY_SERVE_HAPROXY_H2_FE_INITIAL_WINDOW_SIZE, value: "1048576"}
- {name: RAY_SERVE_HAPROXY_H2_BE_INITIAL_WINDOW_SIZE, value: "1048576"}
- {name: RAY_SERVE_HAPROXY_TUNE_BUFSIZE, value: "65536"}
{{- /* Idle connections leave a replaced HAProxy before the replicas do that it knows. */}}
- {name: RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S, value: "2"}
- {name: RAY_SERVE_GRPC_MAX_MESSAGE_SIZE, value: {{ add (dig "limits" "max_body_bytes" 134217728 (deepCopy .Values.settings) | int64) 1048576 | quote }}}
- {name: RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH, value: "1073741824"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
# One native thread a library in each replica: the cores belong to the engines.
- {name: OMP_NUM_THREADS, value: "1"}
{{- end }}

{{- /* rayStartParams that every node has: fixed ports, for the NetworkPolicy. */ -}}
{{- define "medserve.rayStart" -}}
num-cpus: "0"
object-store-memory: {{ int64 .Values.sharedMemory.objectStoreBytes | quote }}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
dashboard-agent-listen-port: "52365"
metrics-export-port: "8080"
min-worker-port: "10002"
max-worker-port: "19999"
{{- end }}

{{- define "medserve.rayProbes" -}}
startupProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{- /* The first thing in a container of a pod with metrics: the folder that its processes write to. */ -}}
{{- define "medserve.exporter" -}}
- name: metrics
  {{- include "medserve.servingImage" . | nindent 2 }}
  command: [python, -m, serving.deploy.exporter, "9095"]
  env:
    - {name: HOME, value: /tmp}
    - {name: PROMETHEUS_MULTIPROC_DIR, value: /run/medserve/metrics}
  ports:
    - {name: medserve, containerPort: 9095}
  livenessProbe:
    httpGet: {path: /metrics, port: medserve}
    periodSeconds: 30
    timeoutSeconds: 10
  resources:
    requests: {cpu: 50m, memory: 128Mi}
    limits: {cpu: 200m, memory: 256Mi}
  securityContext:
    {{- include "medserve.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: run, mountPath: /run/medserve}
{{- end }}

{{- /* Makes the folders that programs expect: pods without an init container of their own. */ -}}
{{- define "medserve.folders" -}}
- name: folders
  {{- include "medserve.servingImage" . | nindent 2 }}
  command: [mkdir, -p, /run/medserve/metrics]
  resources:
    requests: {cpu: 50m, memory: 32Mi}
    limits: {cpu: 100m, memory: 64Mi}
  securityContext:
    {{- include "medserve.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: run, mountPath: /run/medserve}
{{- end }}
