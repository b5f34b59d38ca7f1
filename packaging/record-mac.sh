#!/bin/sh
# Record the output of a Mac's own programs about it and a running pensieve service. The recorded
# outputs that our tests parse are made this way.
# usage: packaging/record-mac.sh FOLDER
# Read the files before you share them: they contain process names.
set -u
folder=$1
mkdir -p "$folder"
service=homebrew.mxcl.pensieve

# The file of a missing or failing program has its error message.
record() {
    file=$folder/$1
    shift
    "$@" >"$file" 2>&1 || echo "exit $?" >>"$file"
}

print_service() {
    launchctl print "gui/$(id -u)/$service" || launchctl print "user/$(id -u)/$service"
}

record sw_vers.txt sw_vers
record uname.txt uname -a
record ps-tree.txt ps -axo pid=,ppid=,rss=
record ps-start.txt ps -axo pid=,stat=,lstart=
record ps-one.txt ps -o stat=,lstart= -p $$
record lsof-port.txt lsof -nP -iTCP:7777 -sTCP:LISTEN -Fp
record vm_stat.txt vm_stat
record memory_pressure.txt memory_pressure -Q
record sysctl-hw.txt sysctl hw machdep.cpu
record sysctl-memory.txt sysctl kern.memorystatus_vm_pressure_level iogpu.wired_limit_mb \
    vm.swapusage kern.osproductversion
record pmset-assertions.txt pmset -g assertions
record launchctl-print.txt print_service
record plist.txt plutil -p "$HOME/Library/LaunchAgents/$service.plist"
record limits.txt launchctl limit
python=$(command -v brew >/dev/null && brew --prefix pensieve)/libexec/bin/python
record device_info.txt "$python" -c '
import json, platform
import mlx.core as mx
print(platform.mac_ver())
print(json.dumps(mx.device_info()))
'
record status.json pensieve status --json
ls "$folder"
