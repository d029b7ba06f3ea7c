{{- define "spfem.testContainer" -}}
securityContext: {{- include "spfem.containerSecurity" . | nindent 2 }}
resources:
  requests: {cpu: 500m, memory: 2Gi}
  limits: {cpu: 500m, memory: 2Gi}
env: {{- include "spfem.homeEnv" . | nindent 2 }}
  {{- with include "spfem.mlflowUri" . }}
  - {name: MLFLOW_TRACKING_URI, value: {{ . | quote }}}
  {{- end }}
  {{- if .Values.storage.volume.enabled }}
  - {name: SPFEM_HOME, value: {{ .Values.storage.volume.mountPath }}}
  {{- end }}
  {{- include "spfem.mlflowLogin" . | nindent 2 }}
  {{- include "spfem.s3Env" . | nindent 2 }}
  {{- include "spfem.caEnv" . | nindent 2 }}
  {{- include "spfem.envOf" .Values.tests.env | nindent 2 }}
  {{- if eq .Values.mode "RayCluster" }}
  - {name: RAY_AUTH_MODE, value: {{ .Values.ray.auth.mode }}}
  {{- if eq .Values.ray.auth.mode "token" }}
  - name: RAY_AUTH_TOKEN
    valueFrom: {secretKeyRef: {name: {{ default (include "spfem.fullname" .) .Values.ray.auth.existingSecret }}, key: auth_token}}
  {{- end }}
  {{- end }}
{{- include "spfem.envFrom" (concat .Values.tests.envFromSecrets (compact (list .Values.mlflow.clientSecret))) }}
volumeMounts:
  - {name: scratch, mountPath: /scratch}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.storage.volume.enabled }}
  - {name: data, mountPath: {{ .Values.storage.volume.mountPath }}}
  {{- end }}
  {{- include "spfem.caMount" . | nindent 2 }}
  {{- with .Values.tests.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
