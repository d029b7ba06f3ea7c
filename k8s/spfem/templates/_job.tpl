{{/* job.workers as a YAML list: the number, or the least and the most. */}}
{{- define "spfem.workers" -}}
{{- ternary .Values.job.workers (list .Values.job.workers) (kindIs "slice" .Values.job.workers) | toYaml -}}
{{- end }}

{{/* A place as every process reads it: relative folders start at the shared volume. (dict "context" $ "place" p) */}}
{{- define "spfem.place" -}}
{{- $place := .place | trimSuffix "/" -}}
{{- if or (contains "://" $place) (hasPrefix "/" $place) -}}{{ $place }}{{- else -}}{{ .context.Values.storage.volume.mountPath }}/{{ $place }}{{- end -}}
{{- end }}

{{/* One word of a command line, quoted where a shell would read more into it. */}}
{{- define "spfem.word" -}}
{{- $word := toString . -}}
{{- if regexMatch "^[A-Za-z0-9_./:=,@%+-]+$" $word -}}{{ $word }}{{- else -}}'{{ $word }}'{{- end -}}
{{- end }}

{{/* A number as Python reads it: 1e+06 becomes 1000000. */}}
{{- define "spfem.value" -}}
{{- if kindIs "float64" . -}}
{{- ternary (printf "%.0f" .) (toString .) (eq (floor .) .) -}}
{{- else if kindIs "bool" . -}}
{{- ternary "True" "False" . -}}
{{- else -}}
{{- include "spfem.word" . -}}
{{- end -}}
{{- end }}

{{- define "spfem.flags" -}}
{{- range $name, $value := .Values.job.flags }} --{{ $name }}
{{- if kindIs "slice" $value }}{{ range $value }} {{ include "spfem.value" . }}{{ end }}{{ else }} {{ include "spfem.value" $value }}{{ end }}
{{- end -}}
{{- end }}

{{/* The flags that every recipe and `spfem doctor` take. */}}
{{- define "spfem.runFlags" -}}
{{- with .Values.job.name }} --name {{ include "spfem.word" . }}{{ end }}
{{- printf " --data.shards %s --data.split %s" (include "spfem.place" (dict "context" . "place" .Values.storage.shards)) .Values.storage.split -}}
{{- printf " --checkpoint.storage %s" (include "spfem.place" (dict "context" . "place" .Values.storage.runs)) -}}
{{- printf " --tracking.uri %s" (default "''" (include "spfem.mlflowUri" .)) -}}
{{- printf " --scaling.workers %s --scaling.gpu %s" (include "spfem.workers" . | fromYamlArray | join " ") (include "spfem.value" .Values.job.gpu) -}}
{{- end }}

{{/* What Ray is asked to run. */}}
{{- define "spfem.entrypoint" -}}
{{- $job := .Values.job -}}
{{- $recipes := printf "%s/recipes" .Values.image.workdir -}}
{{- $runs := include "spfem.place" (dict "context" . "place" .Values.storage.runs) -}}
{{- if eq $job.task "stage1" -}}
python {{ $recipes }}/cdrl_stage1.py{{ include "spfem.runFlags" . }}{{ include "spfem.flags" . }}
{{- else if eq $job.task "stage2" -}}
python {{ $recipes }}/cdrl_stage2.py{{ include "spfem.runFlags" . }}
{{- with $job.priors }} --priors{{ range . }} {{ include "spfem.word" . }}{{ end }}{{ end }}{{ include "spfem.flags" . }}
{{- else if eq $job.task "judges" -}}
python {{ $recipes }}/metric_nets.py{{ include "spfem.runFlags" . }}{{ include "spfem.flags" . }}
{{- else if eq $job.task "doctor" -}}
spfem doctor {{ $recipes }}/cdrl_stage1.py{{ include "spfem.runFlags" . }}{{ include "spfem.flags" . }}
{{- else if eq $job.task "prepare" -}}
spfem prepare {{ $job.corpus }}{{ with $job.recordings }} {{ include "spfem.word" (include "spfem.place" (dict "context" $ "place" .)) }}{{ end }} --out {{ include "spfem.place" (dict "context" . "place" .Values.storage.shards) }}
{{- include "spfem.flags" . }}
{{- else if eq $job.task "evaluate" -}}
{{- $run := default (ternary "cdrl-stage1" "cdrl-stage2" (eq $job.evaluate "priors")) $job.run -}}
spfem evaluate {{ $job.evaluate }} {{ include "spfem.word" (printf "%s/%s" $runs $run) }}
{{- if eq $job.evaluate "generator" }} --judges {{ include "spfem.word" (printf "%s/%s" $runs $job.judges) }}{{ end }}{{ include "spfem.flags" . }}
{{- else -}}
{{- $words := list -}}
{{- range $job.command }}{{ $words = append $words (include "spfem.word" .) }}{{ end -}}
{{- join " " $words }}
{{- end -}}
{{- end }}

{{/* Another job gets another name, so that an upgrade replaces what runs and the run itself goes on where it was. */}}
{{- define "spfem.jobName" -}}
{{- $spec := include "spfem.cluster" . | cat (include "spfem.entrypoint" .) (.Values.job | toJson) -}}
{{- printf "%s-%s" (include "spfem.fullname" . | trunc 38 | trimSuffix "-") (sha256sum $spec | trunc 6) -}}
{{- end }}
