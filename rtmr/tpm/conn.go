package tpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// patience is how long a TPM may say that it has not begun a command, and how
// long registers may move while they are read, before it is an ErrBusy.
const patience = 2 * time.Second

// headerSize is that of a command and of a response: tag, size, code (Part 1,
// "Command/Response Structure").
const headerSize = 10

// Tags of responses (Part 2, "TPM_ST"). A TPM 1.2 answers what it does not
// know by the first, and so does a TPM 2.0 what looks like a command of 1.2.
const (
	tagVersion12  = 0x00C4
	tagNoSessions = 0x8001
	tagSessions   = 0x8002
)

// call is a transport.TPM for the commands of one call of a Device's method.
type call struct {
	ctx context.Context
	d   *Device
}

// Send sends a command, again while the TPM says that it has not begun it.
func (c call) Send(command []byte) ([]byte, error) {
	started := time.Now()
	for wait := time.Millisecond; ; wait *= 2 {
		response, err := c.d.send(command)
		if err != nil {
			return nil, err
		}
		code, err := responseCode(response)
		if err != nil {
			return nil, err
		}
		if !notBegun(code) || time.Since(started) > patience {
			return response, nil
		}
		select {
		case <-c.ctx.Done():
			return response, nil
		case <-time.After(wait):
		}
	}
}

func (d *Device) send(command []byte) ([]byte, error) {
	d.sending.Lock()
	defer d.sending.Unlock()
	return d.transport.Send(command)
}

// responseCode returns the code of a response that is whole.
func responseCode(response []byte) (tpm2.TPMRC, error) {
	if len(response) < headerSize {
		return 0, fmt.Errorf("%w: the TPM's response of %d bytes, expected %d or more", rtmr.ErrShort, len(response), headerSize)
	}
	tag, size := binary.BigEndian.Uint16(response), int64(binary.BigEndian.Uint32(response[2:]))
	switch {
	case size > int64(len(response)):
		return 0, fmt.Errorf("%w: the TPM's response of %d bytes, which says %d", rtmr.ErrShort, len(response), size)
	case size < int64(len(response)):
		return 0, fmt.Errorf("the TPM's response of %d bytes says %d", len(response), size)
	case tag == tagVersion12:
		return 0, &rtmr.NotSupportedError{Feature: "TPM 2.0 (this one answers as a TPM 1.2)"}
	case tag != tagNoSessions && tag != tagSessions:
		return 0, fmt.Errorf("the TPM's response has tag 0x%04x, expected 0x%04x or 0x%04x", tag, tagNoSessions, tagSessions)
	}
	return tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])), nil
}
