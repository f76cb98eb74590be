//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"

	"tallystick/bpf/attester"
	"tallystick/evidence"
	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
	"tallystick/rtmr/tpm"
)

// Prover has a device's registers vouched for.
type Prover interface {
	// Prove puts a quote of the registers as they are, for the nonce, into the
	// bundle. Nothing is extended meanwhile.
	Prove(ctx context.Context, nonce []byte, b *evidence.Bundle) error
	// Finish adds what may take longer, when extends go on.
	Finish(ctx context.Context, b *evidence.Bundle) error
}

// MaxNonce is how long a nonce may be, in bytes: all that REPORTDATA holds.
const MaxNonce = 64

// NewProver returns the Prover of a device, which has to be one of Choose's.
func NewProver(ctx context.Context, device rtmr.Device) (Prover, error) {
	switch d := device.(type) {
	case *tdx.Device:
		return tdProver{d}, nil
	case *tpm.Device:
		key, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Endorsement)
		if err != nil {
			return nil, fmt.Errorf("attestation key: %w", err)
		}
		return &tpmProver{d, key}, nil
	}
	if device.Describe().Kind != "bpf" {
		return valuesProver{device}, nil
	}
	a, err := attester.New(attester.Options{})
	if err != nil {
		return nil, err
	}
	return &softProver{device: device, attester: a}, nil
}

// tdProver proves a TD's registers.
type tdProver struct{ *tdx.Device }

func (p tdProver) Prove(ctx context.Context, nonce []byte, b *evidence.Bundle) (err error) {
	var data [64]byte
	copy(data[:], nonce)
	b.TDQuote, err = p.Quote(ctx, data)
	if errors.Is(err, rtmr.ErrNotSupported) { // a report is for this machine alone
		b.Statement.Warnings = append(b.Statement.Warnings, fmt.Sprintf("a TDREPORT in place of a quote: %v", err))
		b.TDQuote, err = p.Report(ctx, data)
	}
	return err
}

func (tdProver) Finish(context.Context, *evidence.Bundle) error { return nil }

// tpmProver proves a TPM's registers by a key that is derived from the endorsement
// hierarchy's seed, and so the same each time.
type tpmProver struct {
	device *tpm.Device
	key    *tpm.Key
}

func (p *tpmProver) Prove(ctx context.Context, nonce []byte, b *evidence.Bundle) error {
	q, err := p.device.Quote(ctx, p.key, nonce, nil)
	if err != nil {
		return err
	}
	b.Attest, b.Signature, b.Public, b.Values = q.Attest, q.Signature, q.Key, q.Values
	return nil
}

func (p *tpmProver) Finish(ctx context.Context, b *evidence.Bundle) error {
	certs, err := p.device.EKCertificates(ctx)
	for _, kind := range []string{"ecc256", "rsa2048"} {
		if b.EKCertificate == nil {
			b.EKCertificate = certs[kind]
		}
	}
	return err
}

// softProver proves registers in the kernel by a key of this process, for which the
// hardware's report stands where there is one.
type softProver struct {
	device   rtmr.Device
	attester *attester.Attester
	quote    *attester.Quote // the last
}

func (p *softProver) Prove(ctx context.Context, nonce []byte, b *evidence.Bundle) error {
	values, err := p.device.Read(ctx)
	if err != nil {
		return err
	}
	var selection []rtmr.Selected
	for _, info := range p.device.Describe().Registers {
		for _, a := range info.Banks {
			selection = append(selection, rtmr.Selected{Alg: a, Register: info.Register})
		}
	}
	if p.quote, err = p.attester.Quote(values, selection, nonce); err != nil {
		return err
	}
	b.Attest, b.Signature, b.Public, b.Values = p.quote.Attest, p.quote.Signature, p.quote.Public, values
	return nil
}

func (p *softProver) Finish(_ context.Context, b *evidence.Bundle) (err error) {
	b.Report, err = hardwareReport(p.quote.ReportData())
	if err != nil {
		b.Statement.Warnings = append(b.Statement.Warnings, fmt.Sprintf("no hardware stands for the key: %v", err))
	}
	return nil
}

// hardwareReport gets the hardware's report from configfs, with the certificates
// that came with it behind it.
func hardwareReport(data [64]byte) ([]byte, error) {
	client, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, err
	}
	r, err := report.Get(client, &report.Request{InBlob: data[:], GetAuxBlob: true, Privilege: &report.Privilege{Level: 0}})
	if err != nil {
		return nil, err
	}
	return append(r.OutBlob, r.AuxBlob...), nil
}

// valuesProver states values, for which nobody vouches.
type valuesProver struct{ rtmr.Device }

func (p valuesProver) Prove(ctx context.Context, _ []byte, b *evidence.Bundle) (err error) {
	b.Values, err = p.Read(ctx)
	return err
}

func (valuesProver) Finish(context.Context, *evidence.Bundle) error { return nil }

// Evidence makes the bundle for a nonce: a quote, and the logs as they were at its
// moment. Extends wait while the quote is made, and others that ask for evidence
// until all of it is: hardware makes one quote at a time.
func (h *Helper) Evidence(ctx context.Context, nonce []byte) (*evidence.Bundle, error) {
	if len(nonce) == 0 || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("%w: a nonce of %d bytes, expected 1 to %d", errRequest, len(nonce), MaxNonce)
	}
	if h.cfg.Prover == nil {
		return nil, fmt.Errorf("%w: this helper makes no evidence", rtmr.ErrNotSupported)
	}
	h.proving.Lock()
	defer h.proving.Unlock()
	b := &evidence.Bundle{Statement: h.statement(nonce)}
	size, listed, err := h.prove(ctx, nonce, b)
	if err != nil {
		return nil, err
	}
	if err := h.cfg.Prover.Finish(ctx, b); err != nil {
		return nil, err
	}
	if b.Journal, err = io.ReadAll(h.extender.journal.ReadFirst(size)); err != nil {
		return nil, err
	}
	if damaged := h.extender.Recovery().Damaged; damaged != "" {
		data, err := os.ReadFile(damaged)
		if err != nil {
			return nil, err
		}
		b.Damaged = append(b.Damaged, data)
	}
	h.addLogs(ctx, b, listed)
	return b, nil
}

// prove makes the quote while nothing is extended, and tells how long the logs are.
func (h *Helper) prove(ctx context.Context, nonce []byte, b *evidence.Bundle) (journal, listed int64, err error) {
	e := h.extender
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(ctx); err != nil {
		return 0, 0, err
	}
	if err := e.check(ctx, e.watched()); err != nil {
		return 0, 0, err
	}
	b.Statement.Time = time.Now()
	err = h.cfg.Prover.Prove(ctx, nonce, b)
	return e.journal.Size(), e.listedSize, err
}

// statement is what the helper says of itself.
func (h *Helper) statement(nonce []byte) evidence.Statement {
	s := evidence.Statement{Helper: "tallyd " + Version, Device: h.cfg.Device.Describe(), Nonce: nonce}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		s.Kernel = strings.TrimSpace(string(release))
	}
	r := h.extender.Recovery()
	if r.Damaged != "" {
		s.Warnings = append(s.Warnings, "a journal was damaged and put aside: "+r.Reason)
	}
	if r.Foreign != "" {
		s.Warnings = append(s.Warnings, "while no helper ran, others extended "+r.Foreign)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil {
		s.Warnings = append(s.Warnings, h.last.Error())
	}
	for _, f := range h.cfg.Facts {
		s.Facts = append(s.Facts, evidence.Fact{Name: f[0], Value: f[1]})
	}
	return s
}

// addLogs adds the firmware's log and the kernel's list, each with its role: what the
// helper extended is in the journal, and the rest was extended by its author.
func (h *Helper) addLogs(ctx context.Context, b *evidence.Bundle, listed int64) {
	role := func(mine bool) evidence.Role {
		if mine {
			return evidence.Checked
		}
		return evidence.Folded
	}
	add := func(item string, r evidence.Role) {
		b.Statement.Logs = append(b.Statement.Logs, evidence.LogRole{Item: item, Role: r})
	}
	if h.cfg.FirmwareLog != nil {
		b.BootLog = h.cfg.FirmwareLog.Data
		add(evidence.ItemBootLog, role(h.cfg.Mirror))
	}
	var list []byte
	r, err := h.listed(ctx, listed)
	if err == nil {
		list, err = io.ReadAll(r)
	}
	if err != nil && !errors.Is(err, errNoList) {
		b.Statement.Warnings = append(b.Statement.Warnings, fmt.Sprintf("without the kernel's IMA list: %v", err))
	} else if len(list) > 0 {
		b.IMAList = list
		add(evidence.ItemIMAList, role(!h.kernelExtends))
	}
	if len(b.Journal) > 0 {
		add(evidence.ItemJournal, evidence.Folded)
	}
}
