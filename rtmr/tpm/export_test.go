package tpm

import "github.com/google/go-tpm/tpm2/transport"

// Hook has before called with each command that goes to the TPM.
func Hook(d *Device, before func(command []byte)) {
	d.transport = hooked{d.transport, before}
}

type hooked struct {
	transport.TPM
	before func([]byte)
}

func (h hooked) Send(command []byte) ([]byte, error) {
	h.before(command)
	return h.TPM.Send(command)
}
