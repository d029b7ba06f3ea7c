{{/* What a schema cannot say: values that do not go together, each with its fix. Included once, by the Ray object. */}}
{{- define "spfem.checks" -}}
{{- $values := .Values -}}
{{- $job := .Values.job -}}
{{- $training := has $job.task (list "stage1" "stage2" "judges") -}}
{{- $workers := include "spfem.workers" . | fromYamlArray -}}
{{- $wanted := int (first $workers) -}}
{{- if gt $wanted (int (last $workers)) }}{{ fail (printf "job.workers is [%d, %d]: the smaller number comes first" $wanted (int (last $workers))) }}{{ end -}}
{{- $names := list -}}
{{- $gpus := 0 -}}{{- $cpus := 0 -}}{{- $pods := 0 -}}
{{- range $given := .Values.ray.workerGroups -}}
  {{- $group := include "spfem.group" (dict "context" $ "given" $given) | fromYaml -}}
  {{- $where := printf "ray.workerGroups[%s]" $group.name -}}
  {{- if has $group.name $names }}{{ fail (printf "%s: two groups bear this name; give each its own" $where) }}{{ end -}}
  {{- $names = append $names $group.name -}}
  {{- $least := include "spfem.minReplicas" (dict "context" $ "group" $group) | int -}}
  {{- $most := include "spfem.maxReplicas" (dict "context" $ "group" $group) | int -}}
  {{- $now := int $group.replicas -}}
  {{- if or (gt $least $now) (gt $now $most) }}{{ fail (printf "%s: replicas %d is not between minReplicas %d and maxReplicas %d" $where $now $least $most) }}{{ end -}}
  {{- include "spfem.checkShare" (dict "where" $where "node" $group) -}}
  {{- $gpus = add $gpus (mul $now (int $group.gpus)) -}}
  {{- $cpus = add $cpus (mul $now (int (regexFind "^[0-9]+" (toString $group.cpu)))) -}}
  {{- $pods = add $pods $now -}}
{{- end -}}
{{- include "spfem.checkShare" (dict "where" "ray.head" "node" .Values.ray.head) -}}
{{- if le (int .Values.ray.terminationGraceSeconds) (int .Values.ray.drainSeconds) }}{{ fail (printf "ray.terminationGraceSeconds %d is not above ray.drainSeconds %d: a node would be killed while it is drained" (int .Values.ray.terminationGraceSeconds) (int .Values.ray.drainSeconds)) }}{{ end -}}
{{- if eq .Values.mode "RayJob" -}}
  {{- $kind := ternary "GPU" "CPU" $job.gpu -}}
  {{- $have := ternary $gpus $cpus $job.gpu -}}
  {{- if and $training (gt $wanted (int $have)) }}{{ fail (printf "job.workers is %d with one %s each, but ray.workerGroups start with %d %ss: raise replicas or what each has, or lower job.workers" $wanted $kind (int $have) $kind) }}{{ end -}}
  {{- if and (eq $job.task "prepare") (ne $job.corpus "synthetic") (not $job.recordings) }}{{ fail (printf "job.recordings is empty: name the folder of %s's recordings on the shared volume" $job.corpus) }}{{ end -}}
  {{- if and (eq $job.task "prepare") (hasPrefix "s3://" .Values.storage.shards) }}{{ fail (printf "job.task prepare writes shards to a folder, and storage.shards is %s: use a folder of storage.volume and copy it to S3" .Values.storage.shards) }}{{ end -}}
  {{- if and (eq $job.task "command") (not $job.command) }}{{ fail "job.command is empty: give the words of the command, such as [python, recipes/leaderboard.py]" }}{{ end -}}
  {{- if and (not $job.shutdownAfterFinished) (or $job.suspend $values.scheduling.gang) }}{{ fail "job.shutdownAfterFinished false keeps the cluster: it cannot be combined with job.suspend or scheduling.gang" }}{{ end -}}
{{- end -}}
{{- range $flag, $value := $job.flags -}}
  {{- if has $flag (list "name" "data.shards" "data.split" "checkpoint.storage" "tracking.uri" "scaling.workers" "scaling.gpu" "priors") }}{{ fail (printf "job.flags.%s: set it by its own value (job.name, job.workers, job.gpu, job.priors, storage.shards, storage.split, storage.runs, mlflow.externalUri)" $flag) }}{{ end -}}
  {{- include "spfem.checkPlain" (dict "where" (printf "job.flags.%s" $flag) "value" (toString $value)) -}}
{{- end -}}
{{- range $name, $value := .Values.ray.env }}{{ include "spfem.checkEnv" (dict "where" "ray" "name" $name "value" $value) }}{{ end -}}
{{- include "spfem.checkPlain" (dict "where" "mlflow.externalUri" "value" .Values.mlflow.externalUri) -}}
{{- include "spfem.checkPlain" (dict "where" "storage.s3.endpoint" "value" .Values.storage.s3.endpoint) -}}
{{- range $name := list "runs" "shards" -}}
  {{- $place := get $values.storage $name -}}
  {{- if and (not (hasPrefix "s3://" $place)) (not $values.storage.volume.enabled) }}{{ fail (printf "storage.%s is %s, a folder that each pod would have for itself: use s3://bucket/prefix, or set storage.volume.enabled" $name $place) }}{{ end -}}
{{- end -}}
{{- if and .Values.scheduling.gang (not .Values.scheduling.queue) }}{{ fail (printf "scheduling.queue is empty: name the queue that %s takes this from" .Values.scheduling.gang) }}{{ end -}}
{{- if and (eq .Values.scheduling.gang "kueue") .Values.ray.autoscaling.enabled (not .Values.scheduling.elastic) }}{{ fail "scheduling.gang kueue holds quota for a fixed cluster: turn ray.autoscaling.enabled off, or set scheduling.elastic where Kueue has ElasticJobsViaWorkloadSlices" }}{{ end -}}
{{- if and .Values.storage.volume.enabled (eq .Values.storage.volume.accessMode "ReadWriteOnce") (gt (int $pods) 1) (not .Values.storage.volume.existingClaim) }}{{ fail (printf "storage.volume.accessMode ReadWriteOnce ties all pods to one node, and there are %d workers besides the head: use ReadWriteMany, or one worker with more GPUs" (int $pods)) }}{{ end -}}
{{- if .Values.mlflow.enabled -}}
  {{- if and (not .Values.mlflow.database.existingSecret) (not .Values.postgresql.enabled) }}{{ fail "mlflow needs a database: set postgresql.enabled, or name the Secret with its URI in mlflow.database.existingSecret" }}{{ end -}}
  {{- if and .Values.networkPolicy.enabled (not (include "spfem.ownDatabase" .)) (empty .Values.mlflow.database.cidrs) }}{{ fail "mlflow.database.cidrs is empty: name the addresses of that database (10.0.0.0/8, say), the only ones that MLflow may then reach" }}{{ end -}}
  {{- if and (gt (int .Values.mlflow.replicas) 1) (not (hasPrefix "s3://" .Values.mlflow.artifacts)) }}{{ fail (printf "mlflow.replicas is %d, and its artifacts lie on a volume of one pod: set mlflow.artifacts to s3://bucket/prefix" (int .Values.mlflow.replicas)) }}{{ end -}}
  {{- if and .Values.mlflow.metrics .Values.mlflow.auth.enabled (eq .Values.monitoring.operator "google") }}{{ fail "mlflow.metrics with monitoring.operator google: its collectors may not read the Secret that MLflow's /metrics asks for; turn mlflow.metrics or mlflow.auth.enabled off" }}{{ end -}}
  {{- include "spfem.checkDoor" (dict "where" "mlflow.route" "door" .Values.mlflow.route "from" .Values.networkPolicy.mlflowFrom "list" "networkPolicy.mlflowFrom" "context" $) -}}
  {{- include "spfem.checkDoor" (dict "where" "mlflow.ingress" "door" .Values.mlflow.ingress "from" .Values.networkPolicy.mlflowFrom "list" "networkPolicy.mlflowFrom" "context" $) -}}
{{- end -}}
{{- $dashboard := .Values.ray.dashboard -}}
{{- range $what, $door := $dashboard -}}
  {{- include "spfem.checkDoor" (dict "where" (printf "ray.dashboard.%s" $what) "door" $door "from" $values.networkPolicy.dashboardFrom "list" "networkPolicy.dashboardFrom" "context" $) -}}
  {{- if and $door.enabled (eq $values.ray.auth.mode "disabled") }}{{ fail (printf "ray.dashboard.%s opens the dashboard, and with ray.auth.mode disabled whoever reaches it runs code here: set ray.auth.mode to token" $what) }}{{ end -}}
{{- end -}}
{{- if and $dashboard.ingress.enabled (not $dashboard.ingress.tlsSecret) }}{{ fail "ray.dashboard.ingress.tlsSecret is empty: the cluster's token would go in the clear; name the Secret with a certificate" }}{{ end -}}
{{- with .Values.gateway -}}
  {{- if and .enabled (not .className) }}{{ fail "gateway.className is empty: kubectl get gatewayclass shows those that there are" }}{{ end -}}
  {{- if and .enabled (not .tlsSecret) }}{{ fail "gateway.tlsSecret is empty: name the Secret with its certificate" }}{{ end -}}
  {{- if and .enabled (not (or $dashboard.route.enabled $values.mlflow.route.enabled)) }}{{ fail "gateway.enabled without a route: set mlflow.route.enabled or ray.dashboard.route.enabled" }}{{ end -}}
{{- end -}}
{{- with .Values.ray.gcs -}}
  {{- if and .redis $values.networkPolicy.enabled (empty .cidrs) }}{{ fail "ray.gcs.cidrs is empty: name the addresses of that Redis, the only ones that Ray may then reach by its port" }}{{ end -}}
  {{- if and .usernameKey (not .existingSecret) }}{{ fail "ray.gcs.usernameKey is a key of ray.gcs.existingSecret, which is empty" }}{{ end -}}
{{- end -}}
{{- if and .Values.certificates.configMap .Values.certificates.secret }}{{ fail "certificates.configMap and certificates.secret are both set: name one" }}{{ end -}}
{{- if .Values.minio.enabled -}}
  {{- if .Values.storage.s3.endpoint }}{{ fail "storage.s3.endpoint names another S3 than minio.enabled makes: leave one out" }}{{ end -}}
  {{- $any := false -}}{{- range list .Values.storage.runs .Values.storage.shards .Values.mlflow.artifacts }}{{ if hasPrefix "s3://" . }}{{ $any = true }}{{ end }}{{ end -}}
  {{- if not $any }}{{ fail "minio.enabled, and neither storage.runs, storage.shards nor mlflow.artifacts begins with s3://: name a bucket there" }}{{ end -}}
{{- end -}}
{{- if and .Values.postgresql.backup.enabled (not (include "spfem.ownDatabase" .)) }}{{ fail "postgresql.backup dumps the bundled PostgreSQL, and this release runs none: turn it off, and have the other database backed up where it runs" }}{{ end -}}
{{- if .Values.security.requireDigests -}}
  {{- include "spfem.checkDigest" (dict "where" "image" "image" .Values.image) -}}
  {{- if .Values.mlflow.enabled }}{{ include "spfem.checkDigest" (dict "where" "mlflow.image" "image" .Values.mlflow.image) }}{{ end -}}
  {{- if include "spfem.ownDatabase" . }}{{ include "spfem.checkDigest" (dict "where" "postgresql.image" "image" .Values.postgresql.image) }}{{ end -}}
  {{- if .Values.minio.enabled }}{{ include "spfem.checkDigest" (dict "where" "minio.image" "image" .Values.minio.image) }}{{ include "spfem.checkDigest" (dict "where" "minio.client" "image" .Values.minio.client) }}{{ end -}}
{{- end -}}
{{- $pods := dict "ray.head" .Values.ray.head "ray.workerDefaults" .Values.ray.workerDefaults "job.submitter" .Values.job.submitter "mlflow" .Values.mlflow "postgresql" .Values.postgresql "minio" .Values.minio "tests" .Values.tests -}}
{{- range .Values.ray.workerGroups }}{{ $_ := set $pods (printf "ray.workerGroups[%s]" .name) . }}{{ end -}}
{{- range $where, $pod := $pods -}}
  {{- range $name, $value := $pod.env }}{{ include "spfem.checkEnv" (dict "where" $where "name" $name "value" $value) }}{{ end -}}
  {{- range $kind := list "initContainers" "sidecars" }}{{ range default list (get $pod $kind) }}{{ include "spfem.checkRestricted" (dict "where" (printf "%s.%s[%s]" $where $kind .name) "container" .) }}{{ end }}{{ end -}}
  {{- range $pod.extraVolumes }}{{ if .hostPath }}{{ fail (printf "%s.extraVolumes[%s] is a hostPath, which a restricted namespace refuses: use a claim, or a CSI driver for local disks" $where .name) }}{{ end }}{{ end -}}
  {{- range $label, $_ := $pod.labels }}{{ if has $label (list "app.kubernetes.io/instance" "spfem/component") }}{{ fail (printf "%s.labels.%s is the chart's own: services and network policies choose pods by it" $where $label) }}{{ end }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "spfem.checkEnv" -}}
{{- include "spfem.checkPlain" (dict "where" (printf "%s.env.%s" .where .name) "value" (toString .value)) -}}
{{- if regexMatch "(?i)(secret|token|password|passwd|access_key)" .name }}{{ fail (printf "%s.env.%s looks like a secret, and this environment is readable in the object: put it into a Secret and name that in %s.envFromSecrets" .where .name .where) }}{{ end -}}
{{- end }}

{{- define "spfem.checkRestricted" -}}
{{- with .container.securityContext -}}
  {{- if or .privileged (eq (toString .runAsNonRoot) "false") (eq (toString .runAsUser) "0") (eq (toString .allowPrivilegeEscalation) "true") (dig "capabilities" "add" false .) }}{{ fail (printf "%s.securityContext asks for more than a restricted namespace gives: no root, no privileges, no capabilities" $.where) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A door to the outside: (dict "where" w "door" values "from" peers "list" l "context" $). */}}
{{- define "spfem.checkDoor" -}}
{{- if .door.enabled -}}
  {{- if not .door.host }}{{ fail (printf "%s.host is empty: name the host under which it is reached" .where) }}{{ end -}}
  {{- if and .context.Values.networkPolicy.enabled (not .from) }}{{ fail (printf "%s is empty: name the pods of the ingress controller or gateway, which %s would otherwise not let in" .list .where) }}{{ end -}}
  {{- if and (hasKey .door "parentRefs") (not .door.parentRefs) (not .context.Values.gateway.enabled) }}{{ fail (printf "%s.parentRefs is empty: name a Gateway, or set gateway.enabled" .where) }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "spfem.checkDigest" -}}
{{- if not .image.digest }}{{ fail (printf "%s.digest is empty, and security.requireDigests wants one: docker buildx imagetools inspect %s" .where .image.repository) }}{{ end -}}
{{- end }}

{{- define "spfem.checkShare" -}}
{{- if gt (include "spfem.mebibytes" .node.objectStore | int) (include "spfem.mebibytes" .node.sharedMemory | int) }}{{ fail (printf "%s: objectStore %s does not fit sharedMemory %s, of which it is a part" .where .node.objectStore .node.sharedMemory) }}{{ end -}}
{{- end }}

{{- define "spfem.checkPlain" -}}
{{- if regexMatch "://[^/@\\s]+:[^/@\\s]+@" .value }}{{ fail (printf "%s has a password in it, which anyone who reads the object would see: put it into a Secret" .where) }}{{ end -}}
{{- end }}
