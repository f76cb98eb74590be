package tpm

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// Read is rtmr.Device's: the registers' values at one moment, by the TPM's own
// count of changes. It is ErrBusy if they kept moving for two seconds, which
// the banks of one register cannot: they are read by one command. Registers whose
// changes the TPM does not count, in a PC pcr16 and pcr21 to pcr23, may be of
// another moment.
func (d *Device) Read(ctx context.Context, registers ...rtmr.Register) (rtmr.Values, error) {
	infos, err := d.description.Select(registers)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		var values rtmr.Values
		if values, err = d.read(ctx, selection(infos)); err == nil {
			return values, nil
		}
	}
	return nil, fmt.Errorf("read: %w", err)
}

// selection lists what the registers are made of, register by register, so that
// the banks of one are read together.
func selection(infos []rtmr.RegisterInfo) (all []rtmr.Selected) {
	for _, info := range infos {
		for _, a := range info.Banks {
			if s := (rtmr.Selected{Alg: a, Register: info.Register}); !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// read returns values of one moment.
func (d *Device) read(ctx context.Context, want []rtmr.Selected) (rtmr.Values, error) {
	for started := time.Now(); ; {
		values, together, err := readOnce(call{ctx, d}, want)
		if err != nil {
			return nil, explain(err)
		}
		if together {
			return values, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if time.Since(started) > patience {
			return nil, fmt.Errorf("%w: the registers were extended while they were read, for %v", rtmr.ErrBusy, patience)
		}
	}
}

// readOnce reads with as few commands as the TPM's answers allow, and reports
// whether it counted no change between them.
func readOnce(c call, want []rtmr.Selected) (values rtmr.Values, together bool, err error) {
	values, together = make(rtmr.Values), true
	var count uint32
	for first := true; len(want) > 0; first = false {
		asked := slices.Clone(want[:batch(want)])
		r, err := tpm2.PCRRead{PCRSelectionIn: pcrSelection(asked)}.Execute(c)
		if err != nil {
			return nil, false, err
		}
		left, err := take(values, asked, r)
		if err != nil {
			return nil, false, err
		}
		if len(left) == len(asked) {
			return nil, false, fmt.Errorf("%w: the TPM gives no value of %s", rtmr.ErrShort, asked[0])
		}
		want = append(left, want[len(asked):]...)
		together = together && (first || r.PCRUpdateCounter == count)
		count = r.PCRUpdateCounter
	}
	return values, together, nil
}

// batch returns how many values to ask for: whole registers, as many as an answer
// has room for (Part 2, "TPML_DIGEST").
func batch(want []rtmr.Selected) int {
	const room = 8
	if len(want) <= room {
		return len(want)
	}
	n := room
	for n > 1 && want[n].Register == want[n-1].Register {
		n--
	}
	if n == 1 && want[0].Register == want[1].Register {
		return room // it has more banks than there is room for
	}
	return n
}

// pcrSelection groups a selection by bank. Within a bank a TPM goes by the
// PCR's index, whatever the order here.
func pcrSelection(selected []rtmr.Selected) (list tpm2.TPMLPCRSelection) {
	for _, s := range selected {
		i := slices.IndexFunc(list.PCRSelections, func(p tpm2.TPMSPCRSelection) bool { return rtmr.Alg(p.Hash) == s.Alg })
		if i < 0 {
			i = len(list.PCRSelections)
			list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMIAlgHash(s.Alg), PCRSelect: make([]byte, rtmr.NumPCRs/8)})
		}
		list.PCRSelections[i].PCRSelect[s.Register.Index()/8] |= 1 << (s.Register.Index() % 8)
	}
	return list
}

// selected is the order in which a TPM lists, and hashes, what is selected: bank
// by bank, and within one by rising index (Part 1, "Selecting Multiple PCR").
func selected(list tpm2.TPMLPCRSelection) (all []rtmr.Selected) {
	for _, p := range list.PCRSelections {
		for i := range rtmr.NumPCRs {
			if selects(p.PCRSelect, i) {
				register, _ := rtmr.PCR(i).Register()
				all = append(all, rtmr.Selected{Alg: rtmr.Alg(p.Hash), Register: register})
			}
		}
	}
	return all
}

// take adds an answer's values, and returns what it lacks. A TPM may give
// less than was asked for, and says what (Part 3, "TPM2_PCR_Read").
func take(values rtmr.Values, asked []rtmr.Selected, r *tpm2.PCRReadResponse) ([]rtmr.Selected, error) {
	given := selected(r.PCRSelectionOut)
	left := slices.Clone(asked)
	if len(given) != len(r.PCRValues.Digests) {
		return nil, fmt.Errorf("the TPM's answer has %d values, and selects %d", len(r.PCRValues.Digests), len(given))
	}
	for i, s := range given {
		at := slices.Index(left, s)
		if at < 0 {
			return nil, fmt.Errorf("the TPM's answer has %s, which was not asked for", s)
		}
		value := r.PCRValues.Digests[i].Buffer
		if size := s.Alg.Size(); len(value) < size {
			return nil, fmt.Errorf("%w: the TPM's answer has %s of %d bytes, expected %d", rtmr.ErrShort, s, len(value), size)
		} else if size != 0 && len(value) > size {
			return nil, fmt.Errorf("the TPM's answer has %s of %d bytes, expected %d", s, len(value), size)
		}
		values.Set(s.Alg, s.Register, value)
		left = slices.Delete(left, at, at+1)
	}
	return left, nil
}

// Extend is rtmr.Device's, by one TPM2_PCR_Extend, and one TPM2_PCR_Read before.
func (d *Device) Extend(ctx context.Context, register rtmr.Register, digests []rtmr.Digest) error {
	err := d.description.CheckExtend(register, digests)
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	d.extending.Lock()
	defer d.extending.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	if err := d.extend(ctx, register, digests); err != nil {
		return fmt.Errorf("extend %s: %w", register, err)
	}
	return nil
}

// extend extends a register that it has read before: without that value it could
// not tell later whether it did.
func (d *Device) extend(ctx context.Context, register rtmr.Register, digests []rtmr.Digest) error {
	info, _ := d.description.Register(register)
	want := selection([]rtmr.RegisterInfo{info})
	before, err := d.read(ctx, want)
	if err != nil {
		return fmt.Errorf("the register cannot be read: %w", err)
	}
	command := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(register.Index()), Auth: tpm2.PasswordAuth(nil)}}
	for _, digest := range digests {
		command.Digests.Digests = append(command.Digests.Digests, tpm2.TPMTHA{HashAlg: tpm2.TPMIAlgHash(digest.Alg), Digest: digest.Sum})
	}
	_, cause := command.Execute(call{ctx, d})
	if cause == nil {
		return nil
	}
	// A command that fails leaves the TPM as it was (Part 3, "Command Actions"),
	// unless the TPM failed itself, and with it whatever it was at.
	if code, ok := responded(cause); ok && code != tpm2.TPMRCFailure {
		return explain(cause)
	}
	return d.settle(context.WithoutCancel(ctx), want, before, digests, cause)
}

// settle finds out whether a register was extended, by a command that the TPM may
// or may not have executed: its answer was lost or damaged, or the kernel gave
// up waiting (write(2) already executes a command: drivers/char/tpm/tpm-dev-common.c).
// A TPM executes one command at a time, so that when it answers another, the
// extend is over.
func (d *Device) settle(ctx context.Context, want []rtmr.Selected, before rtmr.Values, digests []rtmr.Digest, cause error) error {
	after, err := d.read(ctx, want)
	if err != nil {
		return fmt.Errorf("%w: %w; then the register could not be read: %v", rtmr.ErrUnknown, cause, err)
	}
	kept, known, folded := true, 0, true
	for _, s := range want {
		was, is := before[s.Alg][s.Register], after[s.Alg][s.Register]
		kept = kept && bytes.Equal(was, is)
		if !s.Alg.Available() {
			continue
		}
		known++
		i := slices.IndexFunc(digests, func(d rtmr.Digest) bool { return d.Alg == s.Alg })
		s.Alg.Extend(was, digests[i].Sum)
		folded = folded && bytes.Equal(was, is)
	}
	switch {
	case kept:
		return fmt.Errorf("not extended: %w", cause)
	case folded && known > 0:
		return nil
	}
	return fmt.Errorf("%w: %w; then the register had a value that this extend alone does not give", rtmr.ErrUnknown, cause)
}
