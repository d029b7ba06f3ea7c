{{- define "spfem.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels that select the pods of one part of the release: (dict "context" $ "component" "head"). */}}
{{- define "spfem.selector" -}}
app.kubernetes.io/instance: {{ .context.Release.Name }}
spfem/component: {{ .component }}
{{- end }}

{{- define "spfem.labels" -}}
app.kubernetes.io/name: {{ default .context.Chart.Name .context.Values.nameOverride }}
{{ include "spfem.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version }}
{{- end }}

{{- define "spfem.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else -}}
{{- ternary (include "spfem.fullname" .) "default" .Values.serviceAccount.create -}}
{{- end -}}
{{- end }}

{{- define "spfem.mlflowAccount" -}}
{{- with .Values.mlflow.serviceAccount -}}
{{- default (ternary (printf "%s-mlflow" (include "spfem.fullname" $)) "default" .create) .name -}}
{{- end -}}
{{- end }}

{{/* The Secret with MLflow's first user. */}}
{{- define "spfem.mlflowSecret" -}}
{{- default (printf "%s-mlflow-auth" (include "spfem.fullname" .)) .Values.mlflow.auth.existingSecret -}}
{{- end }}

{{- define "spfem.mlflowClientSecret" -}}
{{- default (printf "%s-mlflow-client" (include "spfem.fullname" .)) .Values.mlflow.clientSecret -}}
{{- end }}

{{/* The value of a Secret's key: what it is since the first install, or a new one. (dict "context" $ "secret" name "key" k "new" value) */}}
{{- define "spfem.kept" -}}
{{- $old := lookup "v1" "Secret" .context.Release.Namespace .secret -}}
{{- if and $old (hasKey $old.data .key) }}{{ get $old.data .key }}{{ else }}{{ .new | b64enc }}{{ end -}}
{{- end }}

{{/* repository:tag, or repository@digest. */}}
{{- define "spfem.imageOf" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end }}

{{- define "spfem.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- include "spfem.imageOf" (dict "repository" .Values.image.repository "tag" $tag "digest" .Values.image.digest) -}}
{{- end }}

{{/* 16Gi -> 16384: the number of MiB in a quantity of Mi or Gi. */}}
{{- define "spfem.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- ternary (mul $number 1024) $number (hasSuffix "Gi" .) -}}
{{- end }}

{{/* Memory of a pod: what its processes use, and /dev/shm, whose pages count as the container's. */}}
{{- define "spfem.podMemory" -}}
{{- add (include "spfem.mebibytes" .memory | int64) (include "spfem.mebibytes" .sharedMemory | int64) -}}Mi
{{- end }}

{{- define "spfem.bytes" -}}
{{- mul (include "spfem.mebibytes" . | int64) 1048576 -}}
{{- end }}

{{- define "spfem.mlflowUri" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "spfem.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc:5000
{{- else -}}
{{- .Values.mlflow.externalUri -}}
{{- end -}}
{{- end }}

{{- define "spfem.volumeClaim" -}}
{{- default (printf "%s-data" (include "spfem.fullname" .)) .Values.storage.volume.existingClaim -}}
{{- end }}

{{- define "spfem.postgresSecret" -}}
{{- default (printf "%s-postgresql" (include "spfem.fullname" .)) .Values.postgresql.existingSecret -}}
{{- end }}

{{/* Whether this release runs its own PostgreSQL: "true" or "". */}}
{{- define "spfem.ownDatabase" -}}
{{- if and .Values.mlflow.enabled .Values.postgresql.enabled (not .Values.mlflow.database.existingSecret) -}}true{{- end -}}
{{- end }}

{{- define "spfem.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.security.runAsUser }}
runAsGroup: {{ .Values.security.runAsUser }}
fsGroup: {{ .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* 999 is the image's postgres. */}}
{{- define "spfem.postgresSecurity" -}}
runAsNonRoot: true
runAsUser: 999
runAsGroup: 999
fsGroup: 999
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "spfem.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
capabilities:
  drop: [ALL]
{{- end }}

{{- define "spfem.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
