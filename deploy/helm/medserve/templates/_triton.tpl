{{- /* What tritonserver is started with. Only metrics listen outside the pod; every interface but inference and health asks for the key. */ -}}
{{- define "medserve.tritonArgs" -}}
- --model-repository=/run/medserve/repository
- --model-control-mode=none
- --exit-on-error=true
- --exit-timeout-secs={{ .Values.drain.timeoutSeconds }}
- --grpc-address=127.0.0.1
- --grpc-port=8001
- --http-address=127.0.0.1
- --http-port=8101
- --metrics-address=0.0.0.0
- --metrics-port=8002
- --grpc-restricted-protocol=shared-memory,model-repository,model-config,statistics,trace,logging:medserve-key=$(MEDSERVE_TRITON__KEY)
- --http-restricted-api=inference,metadata,shared-memory,model-repository,model-config,statistics,trace,logging:medserve-key=$(MEDSERVE_TRITON__KEY)
- --log-info=false
{{- if eq .Values.processor "cpu" }}
- --model-config-name=cpu
- --backend-directory=/run/medserve/backends
- --backend-config=python,shm-region-prefix-name=medserve_triton
- --allow-gpu-metrics=false
{{- end }}
{{- range .Values.triton.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- /* The Triton beside a Ray worker: (dict "root" $ "resources" r "features" bool). */ -}}
{{- define "medserve.triton" -}}
{{- $root := .root -}}
- name: triton
  {{- include "medserve.tritonImage" $root | nindent 2 }}
  command: {{ eq $root.Values.processor "gpu" | ternary (list "tritonserver") (list "python" "-m" "serving.deploy.sidecar") | toJson }}
  args:
    {{- include "medserve.tritonArgs" $root | nindent 4 }}
  env:
    - {name: HOME, value: /tmp}
    - {name: MEDSERVE_ARENA, value: {{ .features | ternary (include "medserve.region" $root) "" | quote }}}
    - {name: MEDSERVE_ENGINE_THREADS, value: {{ int64 $root.Values.triton.threads | quote }}}
    {{- include "medserve.keyEnv" $root | nindent 4 }}
  ports:
    - {name: triton, containerPort: 8002}
  startupProbe:
    exec: {command: [curl, -fsS, -o, /dev/null, "http://127.0.0.1:8101/v2/health/ready"]}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 120
  livenessProbe:
    exec: {command: [curl, -fsS, -o, /dev/null, "http://127.0.0.1:8101/v2/health/live"]}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    exec: {command: [curl, -fsS, -o, /dev/null, "http://127.0.0.1:8101/v2/health/ready"]}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 2
  lifecycle:
    preStop:
      # Its clients leave first.
      exec: {command: [sleep, {{ $root.Values.drain.timeoutSeconds | quote }}]}
  resources:
    {{- include "medserve.withGpu" (dict "root" $root "resources" .resources) | nindent 4 }}
  securityContext:
    {{- include "medserve.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    {{- include "medserve.mounts" $root | nindent 4 }}
{{- end }}

{{- /* Resources with the GPU where there is one. */ -}}
{{- define "medserve.withGpu" -}}
{{- $resources := deepCopy .resources -}}
{{- if eq .root.Values.processor "gpu" -}}
{{- $gpu := dict .root.Values.gpu.resource (int64 .root.Values.gpu.count) -}}
{{- $_ := set $resources "requests" (merge (get $resources "requests" | default dict) $gpu) -}}
{{- $_ := set $resources "limits" (merge (get $resources "limits" | default dict) $gpu) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{- /* The init container that makes the models, the pod's repository and the arena: (dict "root" $ "models" list "features" bool). */ -}}
{{- define "medserve.prepare" -}}
{{- $root := .root -}}
- name: prepare
  image: {{ include "medserve.image" (dict "root" $root "image" $root.Values.image.builder) }}
  imagePullPolicy: {{ $root.Values.image.builder.pullPolicy }}
  command: [python, -m, serving.deploy.prepare]
  args:
    - --cache=/models
    - --release={{ $root.Values.image.builder.tag | default $root.Chart.AppVersion }}
    - --repository=/run/medserve/repository
    {{- range .models }}
    - {{ . | quote }}
    {{- end }}
  env:
    {{- include "medserve.env" $root | nindent 4 }}
    # Weights stay in the volume; elsewhere home is the pod's own.
    - {name: MEDSERVE_HOME, value: /models/home}
    - {name: MEDSERVE_FEATURES__REGION, value: {{ .features | ternary (include "medserve.region" $root) "" | quote }}}
  resources:
    {{- include "medserve.withGpu" (dict "root" $root "resources" $root.Values.models.resources) | nindent 4 }}
  securityContext:
    {{- include "medserve.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: run, mountPath: /run/medserve}
    - {name: settings, mountPath: /etc/medserve, readOnly: true}
    - {name: models, mountPath: /models}
    - {name: dev-shm, mountPath: /dev/shm}
{{- end }}

{{- /* A Triton must be able to hold /dev/shm: its pages count for whoever touches them first. (dict "root" $ "where" path "resources" r "shmBytes" n) */ -}}
{{- define "medserve.checkMemory" -}}
{{- $limit := dig "limits" "memory" "" .resources -}}
{{- if and $limit (lt (include "medserve.bytes" $limit | int64) (int64 .shmBytes)) -}}
{{- fail (printf "%s.resources.limits.memory is %s, less than the pod's /dev/shm of %d bytes: raise it, or lower settings.features.budget_bytes" .where $limit (int64 .shmBytes)) -}}
{{- end -}}
{{- end }}
