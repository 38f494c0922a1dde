#!/bin/sh
# Makes the user of the service. The service is not started: it has to be configured
# first.
set -e
if command -v systemd-sysusers >/dev/null; then
  systemd-sysusers enricher.conf
elif ! getent passwd enricher >/dev/null; then
  useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin enricher
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
