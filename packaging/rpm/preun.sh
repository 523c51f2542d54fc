if [ "$1" -eq 0 ]; then
	if [ -d /run/systemd/system ]; then
		systemctl --no-reload disable --now oomtrace-metrics.socket oomtrace.service || :
	fi
#DETACH#
fi
