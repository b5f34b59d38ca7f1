#!/bin/sh
# Change the published repository everywhere. usage: make repository NAME=owner/name
set -eu
cd "$(dirname "$0")/.."
new=$1
old=$(cat packaging/REPOSITORY)
case $new in
    */*/* | */ | /* | *[!A-Za-z0-9._/-]*) usable=no ;;
    */*) usable=yes ;;
    *) usable=no ;;
esac
[ "$usable" = yes ] || {
    echo "Not a GitHub repository: $new. Use: make repository NAME=owner/name" >&2
    exit 2
}
git grep -lzF "$old" -- README.md CHANGELOG.md Formula docs .github packaging/REPOSITORY |
    xargs -0 perl -pi -e "s|\Q$old\E|$new|g"
git --no-pager diff --stat
