# Run as root by a guest with systemd, Podman and containerd (cargo xtask package --check): installs, uses, upgrades
# and removes the package as an operator does. One line each: PASS or FAIL.
log=/var/log/oomtrace/oom.jsonl
pins=/sys/fs/bpf/oomtrace
failed=0
export DEBIAN_FRONTEND=noninteractive

check() { # NAME COMMAND…
	name=$1
	shift
	if said=$("$@" 2>&1); then
		echo "PASS $name"
	else
		failed=1
		echo "FAIL $name: $(echo $said | tail -c 1500)"
	fi
}

absent() { # COMMAND…: which must fail
	if "$@"; then
		echo "should fail: $*"
		return 1
	fi
}

until_true() { # COMMAND…: for two minutes
	for _ in $(seq 120); do
		"$@" && return 0
		sleep 1
	done
	echo "not within two minutes: $*"
	return 1
}

# A kill in a unit of this name.
kill_in() {
	systemd-run -q --wait --unit="$1" -p MemoryMax=16M -p MemorySwapMax=0 \
		/bin/busybox dd if=/dev/zero of=/dev/null bs=64M count=1 || true
}

told_in_journal() { journalctl -u oomtrace -o cat --no-pager | grep '"type":"oom_kill"' | grep -q "/$1.service"; }
told_in_file() { test "$(cat $log* | grep '"type":"oom_kill"' | grep -c "/$1.service\"")" -ge 1; }
active() { test "$(systemctl is-active oomtrace)" = active; }

install() { apt-get install -y --no-install-recommends "/opt/$1.deb"; }

installed() {
	install first
	until_true active
	test "$(systemctl is-enabled oomtrace)" = enabled
	systemctl show -p FragmentPath --value oomtrace | grep -qx /usr/lib/systemd/system/oomtrace.service ||
		systemctl show -p FragmentPath --value oomtrace | grep -qx /lib/systemd/system/oomtrace.service
}

kill_in_the_journal() {
	kill_in first
	until_true told_in_journal first
}

configured_by_a_file() {
	printf 'OOMTRACE_FILE=%s\nOOMTRACE_PIN=%s\n' "$log" "$pins" >>/etc/default/oomtrace
	systemctl restart oomtrace
	until_true active
	test -d $pins
	kill_in configured
	until_true told_in_file configured
}

rotated_on_reload() {
	mv $log $log.1
	systemctl reload oomtrace
	kill_in rotated
	until_true grep -q /rotated.service $log
}

upgraded_during_kills() {
	cp /etc/default/oomtrace /root/settings
	for number in 1 2 3 4 5 6 7 8; do kill_in upgrade$number; done &
	kills=$!
	install second
	wait $kills
	until_true active
	cmp /root/settings /etc/default/oomtrace
	dpkg-query -W -f '${Version}' oomtrace | grep -qx "$(cat /opt/second.version)"
	for number in 1 2 3 4 5 6 7 8; do until_true told_in_file upgrade$number; done
	absent grep -h '"type":"lost"\|"type":"gap"' $log
}

metrics_in_a_file_and_by_http() {
	mkdir -p /var/lib/prometheus/node-exporter
	page=/var/lib/prometheus/node-exporter/oomtrace.prom
	printf 'OOMTRACE_METRICS_FILE=%s\nOOMTRACE_METRICS_LISTEN=fd\n' $page >>/etc/default/oomtrace
	systemctl stop oomtrace
	systemctl enable --now oomtrace-metrics.socket
	systemctl start oomtrace
	until_true active
	kill_in measured
	until_true grep -q '{unit="measured.service"} 1' $page
	/bin/busybox wget -qO- http://127.0.0.1:9469/metrics | grep -q '{unit="measured.service"} 1'
	# The service itself has no network.
	test "$(systemctl show -p PrivateNetwork --value oomtrace)" = yes
	rm -r /var/lib/prometheus
}

removed() {
	apt-get remove -y oomtrace
	absent test -e /usr/bin/oomtrace
	absent test -e $pins
	absent systemctl is-active -q oomtrace
	# Its settings and its records are the operator's.
	test -e /etc/default/oomtrace
	test -e $log
}

nothing_left() {
	apt-get purge -y oomtrace
	systemctl daemon-reload
	left=$(find / -xdev -path /proc -prune -o -path /opt -prune -o -name '*oomtrace*' -print)
	left="$left$(find /sys/fs/bpf /sys/fs/cgroup /run -name '*oomtrace*')"
	echo "left: $left"
	test -z "$left"
}

podman_runs_the_image() {
	podman load -i /opt/image.tar
	podman run --rm --network none "$(cat /opt/image.name)" --version | grep -qx "oomtrace $(cat /opt/version)"
}

podman_pulls_the_archive() {
	podman rmi -f "$(cat /opt/image.name)"
	id=$(podman pull -q oci-archive:/opt/image.tar)
	podman run --rm --network none "$id" --version | grep -qx "oomtrace $(cat /opt/version)"
}

containerd_runs_the_image() {
	ctr image import /opt/image.tar
	ctr run --rm "$(cat /opt/image.name)" check /usr/bin/oomtrace --version | grep -qx "oomtrace $(cat /opt/version)"
}

# In a container with no more than docs/kubernetes/ gives it.
traces_a_kill() { # NAME COMMAND…: the command prints the lines so far
	unit=$1
	shift
	until_true sh -c "$* | grep -q '\"type\":\"start\"'" || { "$@"; return 1; }
	kill_in "$unit"
	until_true sh -c "$* | grep '\"type\":\"oom_kill\"' | grep -q /$unit.service" || { "$@"; return 1; }
}

# Podman's profile for system calls allows bpf() with CAP_SYS_ADMIN only.
podman_traces_without_privilege() {
	podman load -q -i /opt/image.tar
	podman run -d --name tracer --network none --pid host --cgroupns host --read-only \
		--security-opt no-new-privileges --security-opt seccomp=unconfined --cap-drop all \
		--cap-add BPF --cap-add PERFMON --cap-add SYSLOG --cap-add DAC_READ_SEARCH --cap-add SYS_PTRACE \
		-v /sys/fs/cgroup:/sys/fs/cgroup:ro -v /sys/fs/bpf:/sys/fs/bpf -v /run:/run:ro,rslave \
		-v /var/lib:/var/lib:ro,rslave --device /dev/kmsg:/dev/kmsg:r \
		"$(cat /opt/image.name)" run --output=json
	traces_a_kill by_podman podman logs tracer
	podman rm -f -t 1 tracer
}

# With containerd's own profile, which is RuntimeDefault in Kubernetes.
containerd_traces_without_privilege() {
	ctr image import /opt/image.tar
	drop=
	for name in CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE \
		SYS_CHROOT KILL AUDIT_WRITE; do drop="$drop --cap-drop CAP_$name"; done
	add=
	for name in BPF PERFMON SYSLOG DAC_READ_SEARCH SYS_PTRACE; do add="$add --cap-add CAP_$name"; done
	bind='type=bind,options=rbind:ro:rslave'
	ctr run --rm --seccomp --read-only $drop $add --with-ns pid:/proc/1/ns/pid --with-ns cgroup:/proc/1/ns/cgroup \
		--mount type=bind,src=/sys/fs/cgroup,dst=/sys/fs/cgroup,options=rbind:ro \
		--mount type=bind,src=/sys/fs/bpf,dst=/sys/fs/bpf,options=rbind:rw --device /dev/kmsg \
		--mount $bind,src=/run,dst=/run --mount $bind,src=/var/lib,dst=/var/lib \
		"$(cat /opt/image.name)" tracer /usr/bin/oomtrace run --output=json >/root/by_containerd 2>&1 &
	traces_a_kill by_containerd cat /root/by_containerd
	ctr task kill -s SIGKILL tracer
}

# A step is a process of its own, so that the first command that fails ends it.
if [ $# = 1 ]; then
	set -e
	"$1"
	exit 0
fi
for name in installed kill_in_the_journal configured_by_a_file rotated_on_reload upgraded_during_kills \
	metrics_in_a_file_and_by_http removed nothing_left podman_runs_the_image podman_pulls_the_archive containerd_runs_the_image \
	podman_traces_without_privilege containerd_traces_without_privilege; do
	check $name sh "$0" $name
done
exit $failed
