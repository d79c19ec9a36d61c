#!/bin/sh
# Writes what the composition mounts: rules, routes, dashboards, a token, keys. Safe to repeat; what is secret is made once.
set -eu
umask 022   # what is mounted is read by the users of the containers
here=$(cd "$(dirname "$0")" && pwd)
guard=${SFT_GUARD:-$here/../../.venv/bin/sft-guard}
out=$here/generated
mkdir -p "$out/prometheus" "$out/alertmanager" "$out/guard-token"
"$guard" check "$here/guard/slo.yaml"
"$guard" alerts build --slo "$here/guard/slo.yaml" --out "$out/alerts"
"$guard" dashboards build --slo "$here/guard/slo.yaml" --out "$out/grafana"
chance() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
token=$out/guard-token/token
[ -s "$token" ] || (umask 077 && chance > "$token")
# Read by the composition: the key that signs cache entries, Grafana's password.
[ -s "$here/.env" ] || (umask 077 && printf 'GUARD_CACHE_KEY=%s\nGRAFANA_PASSWORD=%s\n' "$(chance)" "$(chance)" > "$here/.env")
# The generated files name loopback addresses; here every program has a host of its own.
sed -e 's/127\.0\.0\.1:8801/guard:8801/; s/127\.0\.0\.1:9093/alertmanager:9093/' "$out/alerts/prometheus.yml" > "$out/prometheus/prometheus.yml"
cp "$out/alerts/rules.yml" "$out/prometheus/rules.yml"
sed -e 's/127\.0\.0\.1:8801/guard:8801/; s#credentials_file: guard-token#credentials_file: /etc/alertmanager/guard-token#' "$out/alerts/alertmanager.yml" > "$out/alertmanager/alertmanager.yml"
cp "$token" "$out/alertmanager/guard-token"
# Read by users other than yours inside the containers (guard 10001, Alertmanager nobody); your directory keeps others out.
chmod 0644 "$token" "$out/alertmanager/guard-token"
echo "wrote $out; put your pager's address into $out/alertmanager/alertmanager.yml"
