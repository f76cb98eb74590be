//go:build linux

package packaging_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The initramfs' script that starts tallyd goes on when it answers, when it ended, and
// when it hangs.
func TestInitramfsStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, run, status, want string }{
		{"answers", "sleep 60", "true", ""},
		{"ends", "false", "false", "tallyd does not answer"},
		{"hangs", "sleep 60", "sleep 60", "tallyd does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := inNamespaces(t, `printf '#!/bin/sh\ncase $1 in run) exec `+c.run+`;; *) exec `+c.status+`; esac\n' >/run/tallyd; chmod +x /run/tallyd
				mount -t tmpfs none /sys/fs/bpf
				sed s,/usr/bin/tallyd,/run/tallyd, initramfs-tools/start >/run/start; /bin/sh /run/start`)
			if !strings.HasPrefix(out, c.want) || c.want == "" && out != "" {
				t.Errorf("%q, want %q", out, c.want)
			}
		})
	}
}

// The options are those that systemd takes from the same file, and no shell's to run.
func TestInitramfsOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, want string }{
		{"# TALLYD_OPTIONS=--guard yes\n", "run --guard no"},
		{"TALLYD_OPTIONS=--register rtmr3\n", "run --register rtmr3"},
		{"OTHER=1\nTALLYD_OPTIONS=\"--guard yes\"\nTALLYD_OPTIONS=\"--register rtmr3 --guard yes\"", "run --register rtmr3 --guard yes"},
		{"TALLYD_OPTIONS='--poll 5s'\n", "run --poll 5s"},
		{"TALLYD_OPTIONS=$(touch /run/ran)\n", "run $(touch /run/ran)"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			out := inNamespaces(t, `printf '#!/bin/sh\ncase $1 in run) echo "$*" >/run/args; exec sleep 60;; *) [ -e /run/args ];; esac\n' >/run/tallyd; chmod +x /run/tallyd
				cat >/run/default <<'end'
`+strings.TrimSuffix(c.file, "\n")+`
end
				mount -t tmpfs none /sys/fs/bpf
				sed 's,/usr/bin/tallyd,/run/tallyd,; s,/etc/default/tallyd,/run/default,' initramfs-tools/start >/run/start; /bin/sh /run/start; cat /run/args; ls /run/ran 2>/dev/null; true`)
			if strings.TrimSpace(out) != c.want {
				t.Errorf("%q, want %q", out, c.want)
			}
		})
	}
}

// The script that stops it ends nothing else, and goes on if it cannot: here a first
// process of a PID namespace, whom no process inside kills.
func TestInitramfsStop(t *testing.T) {
	t.Parallel()
	const tallyd = "cp /bin/sh /run/tallyd; "
	const stop = "; echo $pid >/run/tallystick/initramfs.pid; /bin/sh initramfs-tools/stop; "
	const ready = " & pid=$!; until [ -e /run/ready ]; do sleep 0.1; done"
	for _, c := range []struct{ name, script, want string }{
		{"another's", "sleep 60 & pid=$!" + stop + "kill -0 $pid && echo alive", "alive"},
		{"ends", tallyd + "/run/tallyd -c 'trap exit TERM; >/run/ready; while sleep 0.1; do :; done'" + ready + stop + "wait $pid && echo ended", "ended"},
		{"killed", tallyd + "/run/tallyd -c 'trap : TERM; >/run/ready; while sleep 0.1; do :; done'" + ready + stop + "wait $pid || echo $?", "137"},
		{"cannot", tallyd + "exec /run/tallyd -c 'pid=1" + stop + "'", "tallyd does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if out := inNamespaces(t, c.script); !strings.HasPrefix(out, c.want) {
				t.Errorf("%q, want %q", out, c.want)
			}
		})
	}
}

// inNamespaces runs a script in this folder as the first process of a PID namespace,
// with a /run of its own, and returns what it says. A minute is more than it may take.
func inNamespaces(t *testing.T, script string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("no lab: namespaces: not root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "/bin/sh", "-c",
		"mount -t tmpfs none /run; mkdir /run/tallystick; "+script)
	cmd.WaitDelay = time.Second // for what of it is left
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}
