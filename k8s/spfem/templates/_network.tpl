{{/* Everywhere is not where a node's identity is handed out: link-local addresses stay shut. */}}
{{- define "spfem.outside" -}}
{{- $shut := get (dict "0.0.0.0/0" (list "169.254.0.0/16") "::/0" (list "fe80::/10" "fd00:ec2::/32" "fd20:ce::/32")) . -}}
{cidr: {{ . | quote }}{{ with $shut }}, except: {{ toJson . }}{{ end }}}
{{- end }}

{{/* The pods of the Ray cluster, head and workers. */}}
{{- define "spfem.rayPods" -}}
matchLabels: {app.kubernetes.io/instance: {{ .Release.Name }}}
matchExpressions:
  - {key: spfem/component, operator: In, values: [head, worker]}
{{- end }}

{{/* Rules to S3 and to what hands out identities. The metadata service, which gives a node's own credentials, is never in the first. */}}
{{- define "spfem.storageEgress" -}}
{{- if .Values.minio.enabled }}
- to:
    - podSelector:
        matchLabels: {{- include "spfem.selector" (dict "context" . "component" "minio") | nindent 10 }}
  ports:
    - {port: 9000, protocol: TCP}
{{- end }}
- to:
    {{- range .Values.networkPolicy.storage.cidrs }}
    - ipBlock: {{ include "spfem.outside" . }}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.storage.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- range .Values.networkPolicy.identity }}
- to:
    - ipBlock: {cidr: {{ .cidr | quote }}}
  ports:
    - {port: {{ .port }}, protocol: TCP}
{{- end }}
{{- end }}
