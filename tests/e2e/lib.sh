#!/usr/bin/env bash
# What engine.sh and images.sh share. Meant to be sourced.

# Downloads outlive the checkout here, and may vanish at any time.
cache="${CFSCALE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cfscale-ci}"
mkdir -p "$cache"
export DEBIAN_FRONTEND=noninteractive
# Debian keeps dockerd, iptables and chroot helpers where an ordinary user's PATH may not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

install_packages() {
  [ "$(id -u)" = 0 ] || die "root is needed to install: $*"
  say "installing $*"
  # Another apt may be at work on the same machine; waiting is better than failing.
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update >&2
  "${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null
}

# The Debian mirror that this machine's own apt uses, whatever the format of its sources.
debian_mirror() {
  local found
  found="$(list_mirrors)"
  if [ -z "$found" ]; then
    apt-get -qq update >&2
    found="$(list_mirrors)"
  fi
  [ -n "$found" ] || die "apt knows no Debian mirror"
  printf '%s\n' "${found%%$'\n'*}"
}

# shellcheck disable=SC2016 # apt's own variables
list_mirrors() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian'; }

# apt for another suite of Debian, with a state of its own.
foreign_apt() {
  local state="$cache/apt/$1" suite="$1" uri
  shift
  uri="$(debian_mirror)" || return 1
  mkdir -p "$state"/{lists/partial,archives/partial,none}
  touch "$state/status"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$suite" >"$state/sources.list"
  # sid is dated, and a machine with a clock ahead of its mirror would reject it.
  apt-get -qq -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts="$state/none" \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$state/none" \
    -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache::archives="$state/archives" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Acquire::Languages=none \
    -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false -o APT::Sandbox::User=root "$@"
}
