#!/bin/sh
# Install this checkout's last commit with Homebrew, from a local tap: nothing has to be published,
# and `brew services` finds it.
# usage: make brew      Undo: brew uninstall pensieve && brew untap local/pensieve
set -eu
cd "$(dirname "$0")/.."
command -v brew >/dev/null || {
    echo "Homebrew is not installed here. Without it: make demo" >&2
    exit 1
}
[ -z "$(git status --porcelain)" ] || echo "What is not committed is not installed." >&2

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
# A tap is a folder of this name. It has the archive too: its path has no spaces and macOS lets
# Homebrew read it.
tap=$(brew --repository)/Library/Taps/local/homebrew-pensieve
# Homebrew caches downloads by URL: each commit needs another one.
folder=$tap/archives/$(git rev-parse HEAD)
archive=$folder/pensieve-$version.tar.gz
rm -rf "$tap"
mkdir -p "$folder" "$tap/Formula"
git archive --format=tar.gz --prefix="pensieve-$version/" --output="$archive" HEAD
sha256=$(shasum -a 256 "$archive" | cut -d ' ' -f 1)
git show HEAD:Formula/pensieve.rb |
    sed -e "s|^  url \".*\"|  url \"file://$archive\"|" \
        -e "s|^  sha256 \".*\"|  sha256 \"$sha256\"|" >"$tap/Formula/pensieve.rb"

action=install
[ ! -e "$(brew --prefix)/opt/pensieve" ] || action=reinstall
# Homebrew trusts a formula by its full name only.
brew "$action" --formula local/pensieve/pensieve
echo "pensieve $version is installed. Start it now and at each login: brew services start pensieve"
[ "$action" = install ] ||
    echo "Update a running service: brew services restart pensieve"
