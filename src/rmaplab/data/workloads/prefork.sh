#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Apache's prefork server: a pool of forked processes, each ended after some requests and forked anew.
# The server ends its whole process group, hence a session of its own.
# Programs: apache2 ab setsid
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/htdocs"
seq 1 500 >"$work/htdocs/index.html"
modules=/usr/lib/apache2/modules
cat >"$work/httpd.conf" <<END
ServerRoot "$work"
ServerName localhost
Listen 127.0.0.1:18431
PidFile "$work/pid"
ErrorLog "$work/error.log"
DocumentRoot "$work/htdocs"
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule mime_module $modules/mod_mime.so
LoadModule deflate_module $modules/mod_deflate.so
LoadModule filter_module $modules/mod_filter.so
TypesConfig /etc/mime.types
StartServers 8
MinSpareServers 6
MaxSpareServers 12
MaxRequestWorkers 24
MaxConnectionsPerChild 60
END
[ "$(id -u)" != 0 ] || printf 'User www-data\nGroup www-data\n' >>"$work/httpd.conf"
chmod 755 "$work"
setsid apache2 -DFOREGROUND -f "$work/httpd.conf" >/dev/null 2>&1 &
server=$!
until ab -q -n 1 http://127.0.0.1:18431/ >/dev/null 2>&1; do sleep 0.1; done
ab -q -n 1500 -c 20 http://127.0.0.1:18431/ >/dev/null 2>&1
ab -q -n 1500 -c 20 -H 'Accept-Encoding: gzip' http://127.0.0.1:18431/ >/dev/null 2>&1
kill -TERM $server
wait $server || true
