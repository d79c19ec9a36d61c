#!/bin/sh
# Real peers for the tests that use them: Redis, Prometheus with promtool, Alertmanager, PostgreSQL, Chromium, nginx and
# haproxy; and what checks or builds a part: a C compiler, openssl, systemd-analyze, kubectl.
# Debian or Ubuntu, as root. Without them those tests skip and say which package is missing.
set -eu
packages="redis-server prometheus prometheus-alertmanager postgresql chromium fonts-wqy-microhei nginx-light libnginx-mod-http-lua haproxy gcc libc6-dev openssl systemd"
command -v kubectl >/dev/null || packages="$packages kubernetes-client"   # other packages bring it as well
missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "install-debian: needs root for:$missing" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The services are started by the tests themselves, on ports of their own; the package's own must not run.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
# shellcheck disable=SC2086 - a list of words
apt-get install -y -qq --no-install-recommends $missing
