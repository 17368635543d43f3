#!/bin/sh
# Run by dpkg and rpm after the package's files are gone. Starts and stops nothing.
set -e
case ${1:-} in
  remove|purge|0) ;;
  *) exit 0 ;;
esac
# The run folders of engines that have ended, with the logs that could be written nowhere else; a socket is there while
# one runs. By their names alone they are an engine's, and a link is removed as a link.
for folder in /run/oss-connector /tmp/oss-connector-[0-9]* /dev/shm/oss-connector-[0-9]*; do
  if [ -d "$folder" ] && ! ls "$folder"/*.sock >/dev/null 2>&1; then
    rm -rf "$folder"
  fi
done
if [ "$1" = purge ]; then
  rm -rf /var/log/oss-connector
fi
# dpkg takes these along when they are empty, but they are the system's.
mkdir -p /usr/local/bin /usr/local/lib
