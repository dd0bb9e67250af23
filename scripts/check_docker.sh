#!/usr/bin/env bash
# Checks that Docker Engine and its Compose plugin are installed, answer, and can read docker-compose.yml. `make up` calls
# it before it installs or builds anything. Works with the bash 3.2 of macOS.
set -euo pipefail

ENGINE=25.0.0   # healthcheck.start_interval
COMPOSE=2.24.4  # !override in deploy/docker/tgi.yml
INSTALL=https://docs.docker.com/engine/install/

fail() { printf 'up: %s\n' "$*" >&2; exit 1; }

# Whether version FOUND is WANTED or newer; what follows the numbers (26.1.5+dfsg1, 2.24.6-desktop.1) is ignored.
at_least() { # FOUND WANTED
  local IFS=. i found wanted
  read -r -a found <<< "${1%%[^0-9.]*}"
  read -r -a wanted <<< "$2"
  for i in 0 1 2; do
    [ "${found[i]:-0}" -le "${wanted[i]}" ] || return 0
    [ "${found[i]:-0}" -ge "${wanted[i]}" ] || return 1
  done
}

command -v docker >/dev/null || fail "docker is not installed; see $INSTALL, or use \`seal up\`, which needs no containers"
engine=$(docker version --format '{{.Server.Version}}' 2>&1) ||
  fail "Docker Engine does not answer ($(printf '%s\n' "$engine" | tail -n 1)); start it, and let this user use it"
at_least "$engine" "$ENGINE" || fail "Docker Engine $engine is too old; $ENGINE or newer is needed: $INSTALL"
compose=$(docker compose version --short 2>&1) ||
  fail "docker has no Compose plugin; install docker-compose-plugin (docker-compose, with a hyphen, is the old one): $INSTALL"
compose=${compose#v}
at_least "$compose" "$COMPOSE" || fail "Docker Compose $compose is too old; $COMPOSE or newer is needed: $INSTALL"
