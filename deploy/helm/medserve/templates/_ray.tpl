{{- define "medserve.serveConfig" -}}
{{- $models := list -}}
{{- range $name, $pool := .Values.pools -}}{{- $models = concat $models $pool.models -}}{{- end -}}
{{- /* A change of the arguments starts every replica anew, one after another. What needs no such thing stands under `deployments`. */ -}}
{{- $settings := include "medserve.settings" . | fromYaml -}}
{{- $versions := get $settings "versions" -}}
{{- $_ := unset $settings "versions" -}}
{{- $_ := unset $settings.router "replicas" -}}
{{- $replicas := dict "Ingress" .Values.router.replicas -}}
{{- range $name, $pool := .Values.pools -}}
{{- $mine := get $settings.pools $name -}}
{{- if not (include "medserve.autoscaled" $mine) -}}
{{- $_ := set $replicas $name $mine.replicas -}}
{{- $_ := unset $mine "replicas" -}}
{{- end -}}
{{- end -}}
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000}
grpc_options:
  port: 9000
  grpc_servicer_functions:
    - serving.edge.grpc.add_inference_servicer
    - serving.edge.grpc.add_health_servicer
logging_config: {encoding: JSON, log_level: INFO, enable_access_log: false}
applications:
  - name: medserve
    route_prefix: /
    import_path: serving.deploy.application:app
    args:
      models: {{ toJson $models }}
      wait_s: {{ int64 .Values.models.waitSeconds }}
      settings:
        {{- toYaml $settings | nindent 8 }}
    deployments:
      {{- range $name, $count := $replicas }}
      - name: {{ $name }}
        num_replicas: {{ int64 $count }}
        {{- if and $versions (eq $name "Ingress") }}
        user_config: {versions: {{ toJson $versions }}}
        {{- end }}
      {{- end }}
{{- end }}

{{- define "medserve.podMeta" -}}
metadata:
  labels:
    {{- include "medserve.podLabels" . | nindent 4 }}
  {{- with .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "medserve.headPod" -}}
{{- $shm := add (int64 .Values.sharedMemory.objectStoreBytes) 67108864 -}}
{{ include "medserve.podMeta" (dict "root" . "component" "head") }}
spec:
  {{- include "medserve.podHead" (dict "root" . "component" "head" "placed" .Values.head "token" .Values.autoscaling.enabled) | nindent 2 }}
  initContainers:
    {{- include "medserve.folders" . | nindent 4 }}
  containers:
    - name: ray
      {{- include "medserve.servingImage" . | nindent 6 }}
      env:
        {{- include "medserve.rayEnv" . | nindent 8 }}
      ports:
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: metrics, containerPort: 8080}
      {{- include "medserve.rayProbes" . | nindent 6 }}
      readinessProbe:
        httpGet: {path: /api/gcs_healthz, port: dashboard}
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml .Values.head.resources | nindent 8 }}
      securityContext:
        {{- include "medserve.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "medserve.mounts" . | nindent 8 }}
  volumes:
    {{- include "medserve.volumes" (dict "root" . "shmBytes" $shm) | nindent 4 }}
{{- end }}

{{- define "medserve.routerPod" -}}
{{- $shm := add (int64 .Values.sharedMemory.objectStoreBytes) 67108864 -}}
{{ include "medserve.podMeta" (dict "root" . "component" "router") }}
spec:
  {{- include "medserve.podHead" (dict "root" . "component" "router" "placed" .Values.router) | nindent 2 }}
  initContainers:
    {{- include "medserve.folders" . | nindent 4 }}
  containers:
    - name: ray
      {{- include "medserve.servingImage" . | nindent 6 }}
      env:
        {{- include "medserve.rayEnv" . | nindent 8 }}
      ports:
        - {name: serve, containerPort: 8000}
        - {name: serve-grpc, containerPort: 9000}
        - {name: metrics, containerPort: 8080}
      {{- include "medserve.rayProbes" . | nindent 6 }}
      readinessProbe:
        httpGet: {path: /readyz, port: serve}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      lifecycle:
        {{- include "medserve.preStop" . | nindent 8 }}
      resources:
        {{- toYaml .Values.router.resources | nindent 8 }}
      securityContext:
        {{- include "medserve.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "medserve.mounts" . | nindent 8 }}
        {{- include "medserve.spoolMount" . | nindent 8 }}
    {{- include "medserve.exporter" . | nindent 4 }}
  volumes:
    {{- include "medserve.volumes" (dict "root" . "shmBytes" $shm) | nindent 4 }}
    {{- include "medserve.spoolVolume" . | nindent 4 }}
{{- end }}

{{- /* (dict "root" $ "name" pool "pool" values) */ -}}
{{- define "medserve.poolPod" -}}
{{- $root := .root -}}
{{- $shm := include "medserve.shmBytes" (dict "root" $root "features" .pool.features) | int64 -}}
{{- include "medserve.checkMemory" (dict "where" (printf "pools.%s.triton" .name) "resources" .pool.triton.resources "shmBytes" $shm) -}}
{{ include "medserve.podMeta" (dict "root" $root "component" .name) }}
spec:
  {{- include "medserve.podHead" (dict "root" $root "component" .name "placed" .pool) | nindent 2 }}
  {{- if and (eq $root.Values.processor "gpu") $root.Values.gpu.runtimeClassName }}
  runtimeClassName: {{ $root.Values.gpu.runtimeClassName }}
  {{- end }}
  initContainers:
    {{- include "medserve.folders" $root | nindent 4 }}
    {{- include "medserve.prepare" (dict "root" $root "models" .pool.models "features" .pool.features) | nindent 4 }}
  containers:
    - name: ray
      {{- include "medserve.servingImage" $root | nindent 6 }}
      env:
        {{- include "medserve.rayEnv" $root | nindent 8 }}
        - {name: MEDSERVE_TRITON__ADDRESS, value: "127.0.0.1:8001"}
        - {name: MEDSERVE_FEATURES__REGION, value: {{ .pool.features | ternary (include "medserve.region" $root) "" | quote }}}
        - {name: MEDSERVE_REPOSITORY__PATH, value: /run/medserve/repository}
        {{- include "medserve.keyEnv" $root | nindent 8 }}
      ports:
        - {name: metrics, containerPort: 8080}
      {{- include "medserve.rayProbes" $root | nindent 6 }}
      readinessProbe:
        httpGet: {path: /api/healthz, port: 52365}
        periodSeconds: 5
        timeoutSeconds: 5
      lifecycle:
        {{- include "medserve.preStop" $root | nindent 8 }}
      resources:
        {{- toYaml .pool.resources | nindent 8 }}
      securityContext:
        {{- include "medserve.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        {{- include "medserve.mounts" $root | nindent 8 }}
    {{- include "medserve.triton" (dict "root" $root "resources" .pool.triton.resources "features" .pool.features) | nindent 4 }}
    {{- include "medserve.exporter" $root | nindent 4 }}
  volumes:
    {{- include "medserve.volumes" (dict "root" $root "shmBytes" $shm) | nindent 4 }}
{{- end }}

{{- /* Ray's nodes among each other. Triton's ports (8001 gRPC, 8002 metrics, 8101 HTTP) are in none of these ranges. */ -}}
{{- define "medserve.rayPorts" -}}
- {port: 6379, endPort: 6383}
- {port: 8000}
- {port: 8265}
- {port: 9000}
- {port: 10001, endPort: 65535}
{{- end }}
