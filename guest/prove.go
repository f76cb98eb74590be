//go:build linux

package guest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
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
	if err != nil { // the quote stands without it
		b.Statement.Warnings = append(b.Statement.Warnings, fmt.Sprintf("without a certificate of the endorsement key: %v", err))
	}
	return ctx.Err()
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

// Evidence is a bundle that was made, and is to be written: once, and then closed.
type Evidence struct {
	*evidence.Stream
	files []io.Closer
}

// Close lets go of the logs.
func (e *Evidence) Close() (err error) {
	for _, f := range e.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Evidence makes the bundle for a nonce: a quote, and the logs as they were at its
// moment. Extends wait while the quote is made, and others that ask for evidence too,
// for hardware makes one quote at a time; nobody waits while the logs are written.
func (h *Helper) Evidence(ctx context.Context, nonce []byte) (*Evidence, error) {
	if len(nonce) == 0 || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("%w: a nonce of %d bytes, expected 1 to %d", errRequest, len(nonce), MaxNonce)
	}
	if len(bytes.Trim(nonce, "\x00")) == 0 {
		return nil, fmt.Errorf("%w: a nonce of zeros, which stand in every quote that nobody asked for", errRequest)
	}
	if h.cfg.Prover == nil {
		return nil, fmt.Errorf("%w: this helper makes no evidence", rtmr.ErrNotSupported)
	}
	if err := h.proving.lockFor(ctx); err != nil {
		return nil, err
	}
	defer h.proving.Unlock()
	e, err := h.evidence(ctx, nonce)
	h.proofs.done(err)
	return e, err
}

// evidence is Evidence, one at a time.
func (h *Helper) evidence(ctx context.Context, nonce []byte) (e *Evidence, err error) {
	b := &evidence.Bundle{Statement: h.statement(nonce)}
	m, err := h.prove(ctx, nonce, b)
	if err != nil {
		return nil, err
	}
	if err := h.cfg.Prover.Finish(ctx, b); err != nil {
		return nil, err
	}
	l := &logs{helper: h, bundle: b}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := l.add(ctx, m); err != nil {
		return nil, err
	}
	l.Stream, err = b.Stream(l.parts...)
	return &l.Evidence, err
}

// moment is how long the logs were when the quote was made.
type moment struct {
	journal int64 // bytes
	listed  int64 // bytes of the kernel's list
}

// prove makes the quote while nothing is extended.
func (h *Helper) prove(ctx context.Context, nonce []byte, b *evidence.Bundle) (m moment, err error) {
	e := h.extender
	// Whatever others extended is found first: for that the tap may take its time. An
	// error comes again.
	e.Check(context.WithoutCancel(ctx), e.watchedNow()...)
	if err := e.mu.lockFor(ctx); err != nil {
		return m, err
	}
	began, quote := time.Now(), time.Duration(0)
	defer func() {
		e.unlock()
		h.proofs.held(b, quote, time.Since(began)-quote)
	}()
	if err := e.catchUp(context.WithoutCancel(ctx), sorted(e.registers)); err != nil {
		b.Statement.Warnings = append(b.Statement.Warnings, fmt.Sprintf("%d measurements are in the journal and not in the registers: %v", e.behind(), err))
	}
	if err := e.check(ctx, e.watched()); err != nil {
		return m, err
	}
	b.Statement.Time = time.Now()
	err = h.cfg.Prover.Prove(ctx, nonce, b)
	quote = time.Since(b.Statement.Time) // by the monotonic clock
	return moment{e.journal.Size(), e.listedSize}, err
}

// watchedNow is watched, without the lock.
func (e *Extender) watchedNow() []rtmr.Register {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.watched()
}

// statement is what the helper says of itself.
func (h *Helper) statement(nonce []byte) evidence.Statement {
	s := evidence.Statement{Helper: "tallyd " + Version, Device: h.cfg.Device.Describe(), Nonce: nonce}
	if release, err := root(cmp.Or(h.cfg.Root, "/")).line("proc/sys/kernel/osrelease"); err == nil {
		s.Kernel = release
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

// logs are a bundle's, each opened and with its role: what the helper extended is in
// the journal, and the rest was extended by its author.
type logs struct {
	Evidence
	helper *Helper
	bundle *evidence.Bundle
	parts  []evidence.Part
}

func (l *logs) add(ctx context.Context, m moment) error {
	h, b := l.helper, l.bundle
	if h.cfg.FirmwareLog != nil {
		b.BootLog = h.cfg.FirmwareLog.Data
		l.role(evidence.ItemBootLog, h.cfg.Mirror)
	}
	list, err := h.listed(ctx, m.listed)
	switch {
	case errors.Is(err, errNoList):
	case err != nil:
		b.Statement.Warnings = append(b.Statement.Warnings, fmt.Sprintf("without the kernel's IMA list: %v", err))
	case list.Size() > 0:
		l.part(evidence.ItemIMAList, list, list.Size())
		l.role(evidence.ItemIMAList, !h.kernelExtends)
	}
	// By the descriptor: at the path there may be another file by now.
	l.part(evidence.ItemJournal, h.extender.journal.ReadFirst(m.journal), m.journal)
	l.role(evidence.ItemJournal, false)
	return l.damaged()
}

// damaged adds the journals of this boot that were put aside, by whatever process, as
// far as they are still there: the last ones, if there are more than a bundle may have.
func (l *logs) damaged() error {
	paths := slices.DeleteFunc(l.helper.extender.Damaged(), func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || info.Size() == 0 // which no item may be
	})
	for i, path := range paths[max(0, len(paths)-evidence.MaxDamaged):] {
		if err := l.file(evidence.DamagedItem(i+1), path); err != nil {
			return err
		}
	}
	return nil
}

func (l *logs) role(item string, mine bool) {
	role := evidence.Folded
	if mine {
		role = evidence.Checked
	}
	l.bundle.Statement.Logs = append(l.bundle.Statement.Logs, evidence.LogRole{Item: item, Role: role})
}

func (l *logs) part(key string, from io.Reader, size int64) {
	if size > 0 {
		l.parts = append(l.parts, evidence.Part{Key: key, Size: size, Content: from})
	}
}

// file adds a file as it is now.
func (l *logs) file(key, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	l.files = append(l.files, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	l.part(key, f, info.Size())
	return nil
}

// proofs count what evidence was made.
type proofs struct {
	mu                    sync.Mutex
	now                   EvidenceStatus
	quoteTimes, heldTimes histogram
}

func (p *proofs) done(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.now.Made++
		return
	}
	p.now.Failed++
	p.now.Error = &Fault{err.Error(), time.Now()}
}

// held notes how long a quote took, and how much longer extends waited for it; the
// bundle says so too.
func (p *proofs) held(b *evidence.Bundle, quote, held time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if quote > 0 {
		last := b.Statement.Time
		p.now.Last, p.now.QuoteSeconds = &last, quote.Seconds()
		p.quoteTimes.add(quote)
	}
	p.now.HeldSeconds = held.Seconds()
	p.now.HeldMax = max(p.now.HeldMax, p.now.HeldSeconds)
	p.heldTimes.add(held)
	b.Statement.Facts = append(b.Statement.Facts, evidence.Fact{Name: "moment", Value: fmt.Sprintf("extends waited for the quote %v, and %v beside it",
		quote.Round(time.Microsecond), held.Round(time.Microsecond))})
}

func (p *proofs) status() EvidenceStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}
