{{/* A worker group with its defaults, as YAML; a 0 that is given stays 0, which `merge` would not leave. */}}
{{- define "spfem.group" -}}
{{- $group := dict -}}
{{- range $key, $value := .context.Values.ray.workerDefaults }}{{ $_ := set $group $key $value }}{{ end -}}
{{- range $key, $value := .given }}{{ $_ := set $group $key $value }}{{ end -}}
{{- toYaml $group -}}
{{- end }}

{{- define "spfem.minReplicas" -}}
{{- if or (not .context.Values.ray.autoscaling.enabled) (kindIs "invalid" .group.minReplicas) }}{{ .group.replicas }}{{ else }}{{ .group.minReplicas }}{{ end -}}
{{- end }}

{{- define "spfem.maxReplicas" -}}
{{- if or (not .context.Values.ray.autoscaling.enabled) (kindIs "invalid" .group.maxReplicas) }}{{ .group.replicas }}{{ else }}{{ .group.maxReplicas }}{{ end -}}
{{- end }}

{{/* Where a process keeps what it may lose: the root file system cannot be written. */}}
{{- define "spfem.homeEnv" -}}
- {name: HOME, value: /scratch/home}
- {name: XDG_CACHE_HOME, value: /scratch/cache}
- {name: MPLCONFIGDIR, value: /scratch/cache/matplotlib}
- {name: NUMBA_CACHE_DIR, value: /scratch/cache/numba}
- {name: TORCH_EXTENSIONS_DIR, value: /scratch/cache/torch_extensions}
- {name: TRITON_CACHE_DIR, value: /scratch/cache/triton}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
{{- end }}

{{/* S3 as s3fs, boto3 and MLflow read it; credentials only by reference. */}}
{{- define "spfem.s3Endpoint" -}}
{{- if .Values.minio.enabled }}http://{{ include "spfem.fullname" . }}-minio.{{ .Release.Namespace }}.svc:9000{{ else }}{{ .Values.storage.s3.endpoint }}{{ end -}}
{{- end }}

{{- define "spfem.s3Secret" -}}
{{- default (ternary (printf "%s-minio" (include "spfem.fullname" .)) "" .Values.minio.enabled) .Values.storage.s3.existingSecret -}}
{{- end }}

{{- define "spfem.s3Env" -}}
{{- $secret := include "spfem.s3Secret" . }}
{{- $region := default (ternary "us-east-1" "" .Values.minio.enabled) .Values.storage.s3.region }}
{{- with .Values.storage.s3 }}
{{- with include "spfem.s3Endpoint" $ }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ . | quote }}}
# Other stores do not know the checksums that AWS's clients send unasked.
- {name: AWS_REQUEST_CHECKSUM_CALCULATION, value: when_required}
- {name: AWS_RESPONSE_CHECKSUM_VALIDATION, value: when_required}
{{- end }}
{{- with $region }}
- {name: AWS_REGION, value: {{ . | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- if $secret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ .accessKeyIdKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ .secretAccessKeyKey }}}}
{{- end }}
{{- end }}
{{- end }}

{{/* NCCL's settings by preset, with fabric.env on top, as a YAML map. */}}
{{- define "spfem.fabricEnv" -}}
{{- $interface := .Values.fabric.interface -}}
{{- $common := dict "NCCL_DEBUG" "WARN" "NCCL_SOCKET_IFNAME" $interface "GLOO_SOCKET_IFNAME" $interface -}}
{{- $presets := dict
  "tcp" (dict "NCCL_IB_DISABLE" "1")
  "efa" (dict "FI_PROVIDER" "efa" "FI_EFA_USE_DEVICE_RDMA" "1" "FI_EFA_FORK_SAFE" "1")
  "infiniband" (dict "NCCL_IB_DISABLE" "0" "NCCL_IB_HCA" "mlx5" "NCCL_NET_GDR_LEVEL" "PHB")
  "roce" (dict "NCCL_IB_DISABLE" "0" "NCCL_IB_HCA" "mlx5" "NCCL_IB_GID_INDEX" "3" "NCCL_NET_GDR_LEVEL" "PHB") -}}
{{- merge (deepCopy .Values.fabric.env) (get $presets .Values.fabric.preset) $common | toYaml -}}
{{- end }}

{{/* Environment of a Ray container: (dict "context" $ "component" "head" or "worker"). */}}
{{- define "spfem.rayEnv" -}}
{{- $values := .context.Values -}}
{{ include "spfem.homeEnv" .context }}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ $values.ray.drainSeconds | quote }}}
{{- with $values.ray.workerStartSeconds }}
- {name: RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S, value: {{ . | quote }}}
{{- end }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- if eq $values.ray.auth.mode "disabled" }}
- {name: RAY_AUTH_MODE, value: disabled}
{{- end }}
- {name: SPFEM_HOME, value: {{ ternary $values.storage.volume.mountPath "/scratch" $values.storage.volume.enabled }}}
{{- if $values.storage.volume.enabled }}
- {name: SPFEM_WEIGHTS, value: {{ $values.storage.volume.mountPath }}/weights}
{{- end }}
{{- with include "spfem.mlflowUri" .context }}
- {name: MLFLOW_TRACKING_URI, value: {{ . | quote }}}
{{- end }}
{{- include "spfem.mlflowLogin" .context }}
{{- include "spfem.s3Env" .context }}
{{- include "spfem.caEnv" .context }}
{{- range $name, $value := include "spfem.fabricEnv" .context | fromYaml }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- if eq .component "head" }}
{{- with $values.monitoring.grafanaHost }}
- {name: RAY_GRAFANA_HOST, value: {{ . | quote }}}
{{- end }}
{{- with $values.monitoring.grafanaIframeHost }}
- {name: RAY_GRAFANA_IFRAME_HOST, value: {{ . | quote }}}
{{- end }}
{{- with $values.monitoring.prometheusHost }}
- {name: RAY_PROMETHEUS_HOST, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- include "spfem.envOf" (merge (deepCopy .node.env) $values.ray.env) }}
{{- end }}

{{/* Ports that would be random are named, so that a network policy can list them. */}}
{{- define "spfem.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
dashboard-agent-listen-port: "52365"
metrics-export-port: "8080"
min-worker-port: "10002"
max-worker-port: "19999"
{{- end }}

{{/* The pod of a Ray node: (dict "context" $ "component" "head" or "worker" "node" <its values> "gpus" n). */}}
{{- define "spfem.rayPod" -}}
{{- $values := .context.Values -}}
{{- $node := .node -}}
{{- $fabric := and (gt (int .gpus) 0) (ne $values.fabric.preset "tcp") -}}
metadata: {{- include "spfem.podMetadata" (dict "context" .context "component" .component "pod" $node) | nindent 2 }}
spec:
  serviceAccountName: {{ include "spfem.serviceAccount" .context }}
  # Only the autoscaler asks the API server for anything.
  automountServiceAccountToken: {{ and (eq .component "head") $values.ray.autoscaling.enabled }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.ray.terminationGraceSeconds }}
  securityContext: {{- include "spfem.podSecurity" .context | nindent 4 }}
  {{- include "spfem.pullSecrets" .context | nindent 2 }}
  {{- with $node.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- $affinity := deepCopy (default dict $node.affinity) }}
  {{- if $node.packInto }}
  {{- $near := dict "weight" 100 "podAffinityTerm" (dict "topologyKey" $node.packInto "labelSelector" (dict "matchLabels" (include "spfem.selector" (dict "context" .context "component" .component) | fromYaml))) }}
  {{- $affinity = merge $affinity (dict "podAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $near))) }}
  {{- end }}
  {{- include "spfem.scheduled" (merge (dict "affinity" $affinity) (omit $node "affinity")) | trim | nindent 2 }}
  {{- with $node.spreadOver }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "spfem.selector" (dict "context" $.context "component" $.component) | nindent 10 }}
  {{- end }}
  {{- with $node.initContainers }}
  initContainers: {{- include "spfem.containers" (dict "context" $.context "containers" .) | nindent 4 }}
  {{- end }}
  containers:
    - name: ray-{{ .component }}
      image: {{ include "spfem.image" .context }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      workingDir: {{ $values.image.workdir }}
      securityContext:
        {{- include "spfem.containerSecurity" .context | nindent 8 }}
      resources:
        {{- $memory := include "spfem.podMemory" $node }}
        {{- /* What lies on a disk of its own is not the node's to count. */}}
        {{- $own := and (eq .component "worker") (not (empty $node.scratchClass)) }}
        {{- $amount := dict "cpu" (toString $node.cpu) "memory" $memory "ephemeral-storage" (ternary "10Gi" $node.scratch $own) }}
        {{- if gt (int .gpus) 0 }}
        {{- $_ := set $amount $node.gpuResource (toString .gpus) }}
        {{- range $name, $count := $values.fabric.resources }}{{ $_ := set $amount $name (toString $count) }}{{ end }}
        {{- end }}
        requests: {{- toYaml $amount | nindent 10 }}
        limits: {{- toYaml $amount | nindent 10 }}
      ports:
        {{- if eq .component "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        - {name: as-metrics, containerPort: 44217}
        - {name: dash-metrics, containerPort: 44227}
        {{- end }}
        - {name: metrics, containerPort: 8080}
      env: {{- include "spfem.rayEnv" . | nindent 8 }}
      {{- include "spfem.envFrom" (concat $values.ray.envFromSecrets $node.envFromSecrets (compact (list $values.mlflow.clientSecret))) | nindent 6 }}
      volumeMounts:
        - {name: dshm, mountPath: /dev/shm}
        - {name: scratch, mountPath: /scratch}
        - {name: tmp, mountPath: /tmp}
        {{- if $values.storage.volume.enabled }}
        - {name: data, mountPath: {{ $values.storage.volume.mountPath }}}
        {{- end }}
        {{- include "spfem.caMount" .context | nindent 8 }}
        {{- with concat $values.ray.extraVolumeMounts $node.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
    {{- with $node.sidecars }}
    {{- include "spfem.containers" (dict "context" $.context "containers" .) | nindent 4 }}
    {{- end }}
  volumes:
    - name: dshm
      emptyDir: {medium: Memory, sizeLimit: {{ $node.sharedMemory }}}
    - name: scratch
      {{- if $own }}
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            storageClassName: {{ $node.scratchClass }}
            resources:
              requests: {storage: {{ $node.scratch }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $node.scratch }}}
      {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: {{ ternary "10Gi" $node.scratch $own }}}
    {{- if $values.storage.volume.enabled }}
    - name: data
      persistentVolumeClaim: {claimName: {{ include "spfem.volumeClaim" .context }}}
    {{- end }}
    {{- include "spfem.caVolume" .context | nindent 4 }}
    {{- with concat $values.ray.extraVolumes $node.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}

{{/* The specification of the cluster, alone or within a job. */}}
{{- define "spfem.cluster" -}}
{{- $ray := .Values.ray -}}
rayVersion: {{ $ray.version | quote }}
authOptions:
  mode: {{ $ray.auth.mode }}
  {{- if and (eq $ray.auth.mode "token") $ray.auth.existingSecret }}
  secretName: {{ $ray.auth.existingSecret }}
  {{- end }}
{{- if and $ray.upgradeStrategy (eq .Values.mode "RayCluster") }}
upgradeStrategy: {type: {{ $ray.upgradeStrategy | quote }}}
{{- end }}
{{- with $ray.gcs }}
{{- if .redis }}
gcsFaultToleranceOptions:
  backend: redis
  redisAddress: {{ .redis | quote }}
  {{- with .namespace }}
  externalStorageNamespace: {{ . }}
  {{- end }}
  {{- if .existingSecret }}
  redisPassword:
    valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .passwordKey }}}}
  {{- with .usernameKey }}
  redisUsername:
    valueFrom: {secretKeyRef: {name: {{ $ray.gcs.existingSecret }}, key: {{ . }}}}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- if $ray.autoscaling.enabled }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: {{ $ray.autoscaling.version }}
  upscalingMode: {{ $ray.autoscaling.upscalingMode }}
  idleTimeoutSeconds: {{ $ray.autoscaling.idleTimeoutSeconds }}
  securityContext: {{- include "spfem.containerSecurity" . | nindent 4 }}
  env: {{- include "spfem.homeEnv" . | nindent 4 }}
  volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: tmp, mountPath: /tmp}
  resources:
    requests: {cpu: {{ $ray.autoscaling.cpu }}, memory: {{ $ray.autoscaling.memory }}}
    limits: {cpu: {{ $ray.autoscaling.cpu }}, memory: {{ $ray.autoscaling.memory }}}
{{- end }}
headGroupSpec:
  serviceType: ClusterIP
  rayStartParams:
    num-cpus: "0"
    dashboard-host: 0.0.0.0
    object-store-memory: {{ include "spfem.bytes" $ray.head.objectStore | quote }}
    memory: {{ include "spfem.bytes" $ray.head.memory | quote }}
    {{- include "spfem.rayPorts" . | nindent 4 }}
    {{- with $ray.head.startParams }}{{ toYaml . | nindent 4 }}{{ end }}
  template: {{- include "spfem.rayPod" (dict "context" $ "component" "head" "node" $ray.head "gpus" 0) | nindent 4 }}
workerGroupSpecs:
{{- range $given := $ray.workerGroups }}
  {{- $group := include "spfem.group" (dict "context" $ "given" $given) | fromYaml }}
  - groupName: {{ $group.name }}
    replicas: {{ $group.replicas }}
    minReplicas: {{ include "spfem.minReplicas" (dict "context" $ "group" $group) }}
    maxReplicas: {{ include "spfem.maxReplicas" (dict "context" $ "group" $group) }}
    {{- if and $ray.autoscaling.enabled (not (kindIs "invalid" $group.idleTimeoutSeconds)) }}
    idleTimeoutSeconds: {{ $group.idleTimeoutSeconds }}
    {{- end }}
    {{- with $group.rayLabels }}
    labels: {{- toYaml . | nindent 6 }}
    {{- end }}
    rayStartParams:
      num-gpus: {{ $group.gpus | quote }}
      object-store-memory: {{ include "spfem.bytes" $group.objectStore | quote }}
      memory: {{ include "spfem.bytes" $group.memory | quote }}
      {{- include "spfem.rayPorts" $ | nindent 6 }}
      {{- with $group.startParams }}{{ toYaml . | nindent 6 }}{{ end }}
    template: {{- include "spfem.rayPod" (dict "context" $ "component" "worker" "node" $group "gpus" $group.gpus) | nindent 6 }}
{{- end }}
{{- end }}

{{/* Labels by which a gang scheduler takes the Ray object. */}}
{{- define "spfem.gangLabels" -}}
{{- with .Values.scheduling }}
{{- if eq .gang "kueue" }}
kueue.x-k8s.io/queue-name: {{ .queue }}
{{- with .priorityClass }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- else if eq .gang "volcano" }}
{{- /* Which scheduler is the operator's own setting, batchScheduler.name. */}}
volcano.sh/queue-name: {{ .queue }}
{{- with .priorityClass }}
ray.io/priority-class-name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
