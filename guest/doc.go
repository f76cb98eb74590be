// Package guest is the guest helper's core: it extends what the kernel and
// applications measure into a device's registers, each measurement exactly once,
// keeps the log that goes with them, and answers a nonce with evidence.
//
//	h, err := guest.New(ctx, guest.Config{Device: device, Journal: path})
//	err = h.Run(ctx)
//
// A [Journal] leads the registers; an [Extender] brings both together, also after a
// crash; a [List] follows the kernel's IMA list; a [Helper] joins them, and a [Server]
// answers for it over a local socket.
//
// On systems other than Linux the package is empty.
package guest
