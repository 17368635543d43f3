#!/bin/sh
# Run by dpkg and rpm after the package's files are gone. Starts and stops nothing.
set -e
case ${1:-} in
  remove|purge|0) ;;
  *) exit 0 ;;
esac
# The lock files of engines that have ended; a socket is there while one runs.
if [ -d /run/oss-connector ] && ! ls /run/oss-connector/*.sock >/dev/null 2>&1; then
  rm -rf /run/oss-connector
fi
# dpkg takes these along when they are empty, but they are the system's.
mkdir -p /usr/local/bin /usr/local/lib
