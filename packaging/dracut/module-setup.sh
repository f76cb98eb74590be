#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # dracut's variables
# dracut's module: tallyd and its units, in an initramfs that has systemd.

check() {
	[ ! -e /etc/tallystick/no-initramfs ] && require_binaries /usr/bin/tallyd
}

depends() {
	echo systemd
}

installkernel() {
	hostonly='' instmods tdx_guest sev-guest
}

install() {
	inst_multiple -o /usr/bin/tallyd /etc/default/tallyd \
		"$systemdsystemunitdir/tallyd.service" "$systemdsystemunitdir/tallyd.socket" \
		/etc/systemd/system/tallyd.service.d/*.conf \
		"$systemdsystemunitdir/modprobe@.service" "$systemdsystemunitdir/sys-kernel-config.mount"
	$SYSTEMCTL -q --root "$initdir" enable tallyd.service tallyd.socket
}
