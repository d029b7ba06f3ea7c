{{- define "spfem.mlflowEnv" -}}
{{- if .Values.mlflow.database.existingSecret }}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ .Values.mlflow.database.existingSecret }}, key: {{ .Values.mlflow.database.key }}}}
{{- else }}
- name: POSTGRES_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "spfem.postgresSecret" . }}, key: password}}
- name: MLFLOW_BACKEND_STORE_URI
  value: postgresql+psycopg2://mlflow:$(POSTGRES_PASSWORD)@{{ include "spfem.fullname" . }}-postgresql:5432/mlflow
{{- end }}
- {name: HOME, value: /scratch}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
# Its job queue serves judges of language models, which nothing here uses.
- {name: MLFLOW_SERVER_ENABLE_JOB_EXECUTION, value: "false"}
{{- if .Values.mlflow.auth.enabled }}
- {name: MLFLOW_AUTH_CONFIG_PATH, value: /scratch/basic_auth.ini}
{{- end }}
{{- include "spfem.s3Env" . }}
{{- include "spfem.caEnv" . }}
{{- include "spfem.envOf" .Values.mlflow.env }}
{{- end }}

{{- define "spfem.mlflowContainer" -}}
securityContext: {{- include "spfem.containerSecurity" . | nindent 2 }}
resources:
  requests: {cpu: {{ .Values.mlflow.cpu }}, memory: {{ .Values.mlflow.memory }}}
  limits: {cpu: {{ .Values.mlflow.cpu }}, memory: {{ .Values.mlflow.memory }}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: scratch, mountPath: /scratch}
  {{- if not (hasPrefix "s3://" .Values.mlflow.artifacts) }}
  - {name: artifacts, mountPath: /artifacts}
  {{- end }}
  {{- include "spfem.caMount" . | nindent 2 }}
  {{- with .Values.mlflow.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
