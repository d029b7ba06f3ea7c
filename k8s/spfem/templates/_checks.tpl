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
{{- range $name, $value := .Values.ray.env -}}
  {{- include "spfem.checkPlain" (dict "where" (printf "ray.env.%s" $name) "value" (toString $value)) -}}
  {{- if regexMatch "(?i)(secret|token|password|passwd|access_key)" $name }}{{ fail (printf "ray.env.%s looks like a secret, and this environment is readable in the Ray object: put it into a Secret and name that in ray.envFromSecrets" $name) }}{{ end -}}
{{- end -}}
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
  {{- if and .Values.mlflow.auth.enabled (not .Values.mlflow.auth.existingSecret) }}{{ fail "mlflow.auth.existingSecret is empty: name the Secret with MLFLOW_AUTH_ADMIN_USERNAME, MLFLOW_AUTH_ADMIN_PASSWORD and MLFLOW_FLASK_SERVER_SECRET_KEY" }}{{ end -}}
  {{- if and .Values.mlflow.auth.enabled (not .Values.mlflow.clientSecret) }}{{ fail "mlflow.clientSecret is empty: with mlflow.auth the Ray pods need MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD from a Secret" }}{{ end -}}
  {{- if and .Values.mlflow.ingress.enabled (not .Values.mlflow.ingress.host) }}{{ fail "mlflow.ingress.host is empty: name the host under which MLFlow is reached" }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "spfem.checkShare" -}}
{{- if gt (include "spfem.mebibytes" .node.objectStore | int) (include "spfem.mebibytes" .node.sharedMemory | int) }}{{ fail (printf "%s: objectStore %s does not fit sharedMemory %s, of which it is a part" .where .node.objectStore .node.sharedMemory) }}{{ end -}}
{{- end }}

{{- define "spfem.checkPlain" -}}
{{- if regexMatch "://[^/@\\s]+:[^/@\\s]+@" .value }}{{ fail (printf "%s has a password in it, which anyone who reads the object would see: put it into a Secret" .where) }}{{ end -}}
{{- end }}
