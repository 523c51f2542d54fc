#!/bin/busybox sh
# Process 1 of a guest: mounts what a system has, runs the job, says how it ended, stops the machine.
# Lines that begin with "@@" are for the host; see qemu.rs.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb
# The scenarios that hurt a whole machine ask for this and for oomtrace.guest=1 on the kernel command line.
export TEST_OOMTRACE_GUEST=1
# What oomtrace-scenarios tests.
export TEST_OOMTRACE_BIN=/bin/oomtrace

finish() {
    echo
    echo "@@ exit $1"
    # QEMU runs with -no-reboot: this ends it, on every architecture.
    reboot -f
    sleep 60
}

refuse() {
    echo
    echo "@@ refused: $1"
    finish 1
}

without() {
    case " $WITHOUT " in *" $1 "*) true ;; *) false ;; esac
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
# Its pages are page cache. Those of tmpfs are shared memory.
mkdir -p /var/cache
mount -t ramfs cache /var/cache
. /job

without tracefs || mount -t tracefs tracefs /sys/kernel/tracing
without bpffs || mount -t bpf bpf /sys/fs/bpf
if without btf; then mount -t tmpfs none /sys/kernel/btf; fi

case "$CGROUP" in
v1)
    mount -t tmpfs cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/memory /sys/fs/cgroup/cpuset /sys/fs/cgroup/unified
    mount -t cgroup -o memory memory /sys/fs/cgroup/memory 2>/dev/null ||
        refuse "this kernel has no memory controller for cgroup v1"
    # As systemd does: without it a limit on a parent does not count its children (the default until 5.11).
    echo 1 2>/dev/null >/sys/fs/cgroup/memory/memory.use_hierarchy
    mount -t cgroup -o cpuset cpuset /sys/fs/cgroup/cpuset
    mount -t cgroup2 unified /sys/fs/cgroup/unified
    ;;
v2)
    mount -t cgroup2 cgroup /sys/fs/cgroup
    for controller in memory cpuset cpu pids; do
        echo "+$controller" 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control
    done
    without memcg || grep -qw memory /sys/fs/cgroup/cgroup.subtree_control ||
        refuse "this kernel has no memory controller for cgroup v2"
    without memcg && grep -qw memory /sys/fs/cgroup/cgroup.controllers &&
        refuse "this kernel kept its memory controller"
    ;;
esac

if without ftrace; then
    # Newer kernels have the switch and refuse to turn it off: the scenarios say that they do not apply.
    echo 0 2>/dev/null >/proc/sys/kernel/ftrace_enabled || export TEST_OOMTRACE_FTRACE_STAYS=1
fi

ip link set lo up
hostname guest
if [ -e /dev/nvme0n1 ]; then
    mkswap /dev/nvme0n1 >/dev/null && swapon /dev/nvme0n1 || refuse "no swap on /dev/nvme0n1"
fi
# The kernel's OOM reports would break the lines of the programs, and a serial console is slow. A panic still shows.
echo 1 >/proc/sys/kernel/printk

echo "@@ booted $(uname -r)"
job
finish $?
