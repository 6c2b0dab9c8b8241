{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough that a suffix still fits. */}}
{{- define "tidegate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tidegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "tidegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tidegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tidegate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The settings file: config, with what the chart knows: the paths of mounted Secrets. */}}
{{- define "tidegate.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $config "tls" (dict "cert" (printf "/etc/tidegate/tls/%s" .Values.tls.certKey) "key" (printf "/etc/tidegate/tls/%s" .Values.tls.keyKey) "record_layer" .Values.tls.recordLayer) -}}
{{- if .Values.tls.ticketKeys.existingSecret -}}
{{- $_ := set $config.tls "ticket_keys" (printf "/etc/tidegate/ticket-keys/%s" .Values.tls.ticketKeys.key) -}}
{{- end -}}
{{- end -}}
{{- if .Values.apiKeys -}}
{{- $keys := list -}}
{{- range .Values.apiKeys -}}
{{- $keys = append $keys (dict "name" .name "scope" .scope "key_file" (printf "/etc/tidegate/api/%s" .name)) -}}
{{- end -}}
{{- $_ := set $config "api" (mergeOverwrite (default dict $config.api) (dict "keys" $keys)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Milliseconds of a duration: {key, value}. */}}
{{- define "tidegate.milliseconds" -}}
{{- $text := toString .value -}}
{{- if not (regexMatch "^[0-9]+(ms|s|m|min|h)$" $text) -}}
{{- fail (printf "config.%s is %q, which the chart cannot add up: write one number with one unit (ms, s, m or h), such as 30s" .key $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[a-z]+$" $text -}}
{{- mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "min" 60000 "h" 3600000) $unit | default 0) -}}
{{- end -}}

{{/* How long a pod may take to leave, in seconds. */}}
{{- define "tidegate.gracePeriod" -}}
{{- $drain := default dict .Values.config.drain -}}
{{- $delay := include "tidegate.milliseconds" (dict "key" "drain.delay" "value" (default "5s" $drain.delay)) | int64 -}}
{{- $duration := include "tidegate.milliseconds" (dict "key" "drain.duration" "value" (default "30s" $drain.duration)) | int64 -}}
{{- $drained := div (add $delay $duration 999) 1000 -}}
{{- $least := add $drained .Values.terminationMarginSeconds -}}
{{- $asked := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $asked -}}
{{- $least -}}
{{- else if lt (int64 $asked) (int64 $least) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but the node drains for %d s (config.drain.delay + config.drain.duration) and terminationMarginSeconds adds %d: Kubernetes would kill it with connections still open. Set it to %d or more, or leave it null." (int64 $asked) (int64 $drained) (int64 .Values.terminationMarginSeconds) (int64 $least)) -}}
{{- else -}}
{{- int64 $asked -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot see. Writes nothing. */}}
{{- define "tidegate.check" -}}
{{- $config := .Values.config -}}
{{- $relay := default dict $config.relay -}}
{{- $kind := default "memory" $relay.kind -}}
{{- $redis := default dict $relay.redis -}}
{{- if hasKey $config "listen" -}}
{{- fail "config.listen is set, but the chart decides where the node listens, as Services and probes have to agree: use listen.address, listen.public and listen.internal" -}}
{{- end -}}
{{- if hasKey $config "tls" -}}
{{- fail "config.tls is set, but its files come from a Secret: use tls.existingSecret" -}}
{{- end -}}
{{- if and .Values.tls.ticketKeys.existingSecret (not .Values.tls.existingSecret) -}}
{{- fail "tls.ticketKeys.existingSecret is set without tls.existingSecret: session tickets are part of TLS" -}}
{{- end -}}
{{- if hasKey (default dict $config.api) "keys" -}}
{{- fail "config.api.keys is set, but keys do not belong into a ConfigMap: use apiKeys, which reads them from Secrets" -}}
{{- end -}}
{{- if $redis.password -}}
{{- fail "config.relay.redis.password is set, but a password does not belong into a ConfigMap: use redis.existingSecret and redis.passwordKey" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" (toString $redis.url) -}}
{{- fail "config.relay.redis.url holds a password, which does not belong into a ConfigMap: use redis.existingSecret with redis.urlKey or redis.passwordKey" -}}
{{- end -}}
{{- if and .Values.redis.existingSecret (not (or .Values.redis.urlKey .Values.redis.usernameKey .Values.redis.passwordKey)) -}}
{{- fail "redis.existingSecret is set, but not what to read from it: set redis.urlKey, redis.passwordKey or both" -}}
{{- end -}}
{{- if and (eq $kind "redis") (not $redis.url) (not (and .Values.redis.existingSecret .Values.redis.urlKey)) -}}
{{- fail "the nodes have to know where Redis is: set config.relay.redis.url (redis://host:6379/0), or redis.existingSecret and redis.urlKey" -}}
{{- end -}}
{{- $most := .Values.replicaCount -}}
{{- if .Values.autoscaling.enabled -}}{{- $most = .Values.autoscaling.maxReplicas -}}{{- end -}}
{{- if and (eq $kind "memory") (gt (int $most) 1) -}}
{{- fail "config.relay.kind is memory, which carries nothing between nodes: set it to redis, or run one node (replicaCount: 1, autoscaling.enabled: false)" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %d, below autoscaling.minReplicas of %d" (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if and $budget.enabled (eq (kindIs "invalid" $budget.maxUnavailable) (kindIs "invalid" $budget.minAvailable)) -}}
{{- fail "podDisruptionBudget takes one of maxUnavailable and minAvailable: set the other to null" -}}
{{- end -}}
{{- if eq (int .Values.listen.public) (int .Values.listen.internal) -}}
{{- fail (printf "listen.public and listen.internal are both %d: the internal port is a second one" (int .Values.listen.public)) -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.apiKeys -}}
{{- if has .name $names -}}{{- fail (printf "apiKeys has %q twice: names are what logs tell keys apart by" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
