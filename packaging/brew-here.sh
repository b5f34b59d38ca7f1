#!/bin/sh
# Installs this checkout's last commit with Homebrew: from a tap on this machine, for which nothing has to be published.
# `brew services` then finds it. usage: make brew      Undo: brew uninstall pensieve && brew untap local/pensieve
set -eu
cd "$(dirname "$0")/.."
command -v brew >/dev/null || {
    echo "Homebrew is not installed here. Without it: make demo" >&2
    exit 1
}
[ -z "$(git status --porcelain)" ] || echo "What is not committed is not installed." >&2

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
# A tap is a folder of this name. The archive lies in it too: a path without spaces, which macOS lets Homebrew read.
tap=$(brew --repository)/Library/Taps/local/homebrew-pensieve
# Homebrew keeps what it fetched by its address, which therefore is another one for each commit.
folder=$tap/archives/$(git rev-parse HEAD)
archive=$folder/pensieve-$version.tar.gz
rm -rf "$tap"
mkdir -p "$folder" "$tap/Formula"
git archive --format=tar.gz --prefix="pensieve-$version/" --output="$archive" HEAD
sha256=$(shasum -a 256 "$archive" | cut -d ' ' -f 1)
git show HEAD:Formula/pensieve.rb |
    sed -e "s|^  url \".*\"|  url \"file://$archive\"|" -e "s|^  sha256 \".*\"|  sha256 \"$sha256\"|" >"$tap/Formula/pensieve.rb"

action=install
[ ! -e "$(brew --prefix)/opt/pensieve" ] || action=reinstall
# The full name is what makes Homebrew trust the formula.
brew "$action" --formula local/pensieve/pensieve
echo "pensieve $version is installed. As a service, now and at each login: brew services start pensieve"
[ "$action" = install ] || echo "One that runs already gets the new version by: brew services restart pensieve"
