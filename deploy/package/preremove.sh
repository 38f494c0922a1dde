#!/bin/sh
# Stops the service when the package is removed, not when it is upgraded: the argument
# is remove for a deb, and 0 for an rpm.
set -e
if [ -d /run/systemd/system ] && { [ "$1" = remove ] || [ "$1" = 0 ]; }; then
  systemctl disable --now enricher.service
fi
