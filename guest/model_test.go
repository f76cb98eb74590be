//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/rtmr"
)

// envSeeds is how many runs of the model there are.
const envSeeds = "MODEL_SEEDS"

// Everything that can fail does, in random order: the device in each way that it may,
// at any of its calls; others extend, and the tap tells of it or not; there is no room
// for the journal; the process dies in the midst of a call, or of a write to the
// journal. Then all is well again, and
//
//   - the journal was never put aside,
//   - each measurement that it has is in the register once, in order, unless a base
//     says that nobody knows,
//   - one that was answered for is there in any case, and one that is not there is known
//     to whoever asks again as undecided,
//   - there are no more such bases than extends by others,
//   - and each register is what the journal folds to from its last base.
func TestModel(t *testing.T) {
	seeds := 150
	if n, err := strconv.Atoi(os.Getenv(envSeeds)); err == nil {
		seeds = n
	}
	dir := t.TempDir()
	room := true // that can be taken away
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Log("the journal is never full, for a file system cannot be mounted:", err)
		room = false
	} else {
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	}
	met := make(map[string]int)
	for seed := range uint64(seeds) {
		m := newModel(t, filepath.Join(dir, fmt.Sprint(seed)), rand.New(rand.NewPCG(seed, 7)), room)
		m.run()
		if t.Failed() {
			t.Fatalf("seed %d, after %q", seed, m.steps)
		}
		for what, n := range m.met {
			met[what] += n
		}
		os.RemoveAll(m.dir)
	}
	t.Logf("%d seeds: %v", seeds, met)
	for _, what := range []string{"died", "died in a write", "unknown", "foreign", "unknown for ever", "explained", "others at the start", "stuck"} {
		if met[what] == 0 {
			t.Errorf("there was no %q", what)
		}
	}
	if room && met["full"] == 0 {
		t.Error("the journal was never full")
	}
}

// fickle is registers, and a log of what extended them.
type fickle struct {
	kind   string
	alg    []rtmr.Alg
	random *rand.Rand
	met    map[string]int
	values map[rtmr.Register]map[rtmr.Alg]rtmr.Hex
	log    map[rtmr.Register][]string // digests, in the first bank
	others int                        // how often others extended

	faults bool // anything may happen
	stuck  map[rtmr.Register]bool
	blind  bool // cannot be read
}

var modelRegisters = []rtmr.Register{pcr10, pcr11, rtmr.MustParse("pcr12")}

func newFickle(random *rand.Rand) *fickle {
	d := &fickle{kind: []string{"memory", "tpm"}[random.IntN(2)], alg: []rtmr.Alg{rtmr.SHA256}, random: random, met: make(map[string]int),
		values: make(map[rtmr.Register]map[rtmr.Alg]rtmr.Hex), log: make(map[rtmr.Register][]string), stuck: make(map[rtmr.Register]bool)}
	if random.IntN(3) == 0 {
		d.alg = append(d.alg, rtmr.SHA384)
	}
	for _, r := range modelRegisters {
		d.values[r] = make(map[rtmr.Alg]rtmr.Hex)
		for _, a := range d.alg {
			d.values[r][a] = r.ResetValue(a)
		}
	}
	return d
}

// clone returns a device that holds the same and does not fail.
func (d *fickle) clone() *fickle {
	c := *d
	c.faults, c.stuck, c.blind, c.met = false, nil, false, make(map[string]int)
	c.values, c.log = make(map[rtmr.Register]map[rtmr.Alg]rtmr.Hex), make(map[rtmr.Register][]string)
	for r, v := range d.values {
		c.values[r] = make(map[rtmr.Alg]rtmr.Hex)
		for a, value := range v {
			c.values[r][a] = bytes.Clone(value)
		}
		c.log[r] = slices.Clone(d.log[r])
	}
	return &c
}

func (d *fickle) Describe() rtmr.Description {
	x := rtmr.Description{Kind: d.kind, Name: "of the model"}
	for _, r := range modelRegisters {
		x.Registers = append(x.Registers, rtmr.RegisterInfo{Register: r, Banks: d.alg, Writable: true})
	}
	return x
}

func (d *fickle) measurement(r rtmr.Register, text string) rtmr.Measurement {
	m := rtmr.Measurement{Register: r, Entry: event(text)}
	for _, a := range d.alg {
		m.Digests = append(m.Digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, []byte(text))})
	}
	return m
}

// do extends a register.
func (d *fickle) do(r rtmr.Register, digests []rtmr.Digest) {
	for _, x := range digests {
		x.Alg.Extend(d.values[r][x.Alg], x.Sum)
	}
	d.log[r] = append(d.log[r], string(digests[0].Sum))
}

// other has somebody else extend a register.
func (d *fickle) other(r rtmr.Register) guest.Other {
	d.others++
	d.met["foreign"]++
	m := d.measurement(r, fmt.Sprint("others' ", d.others))
	d.do(r, m.Digests)
	return guest.Other{Register: r, Digest: m.Digests[0], PID: d.others, Comm: "other"}
}

var (
	errDied = errors.New("died")
	errIO   = errors.New("input/output error")
)

// chance is true once in n times, if anything may happen.
func (d *fickle) chance(n int) bool { return d.faults && d.random.IntN(n) == 0 }

func (d *fickle) mayDie() {
	if d.chance(150) {
		panic(errDied)
	}
}

func (d *fickle) Read(ctx context.Context, registers ...rtmr.Register) (rtmr.Values, error) {
	d.mayDie()
	if d.blind || d.chance(12) {
		return nil, errIO
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(registers) == 0 {
		registers = modelRegisters
	}
	values := make(rtmr.Values)
	for _, r := range registers {
		for a, value := range d.values[r] {
			values.Set(a, r, bytes.Clone(value))
		}
	}
	d.mayDie()
	return values, nil
}

func (d *fickle) Extend(ctx context.Context, r rtmr.Register, digests []rtmr.Digest) error {
	d.mayDie()
	switch {
	case d.stuck[r]:
		d.met["stuck"]++
		return fmt.Errorf("extend %s: %w", r, rtmr.ErrDenied)
	case d.chance(60):
		return errIO
	case d.chance(60):
		return rtmr.ErrBusy
	case d.chance(25):
		return d.unknown(r, digests)
	}
	d.do(r, digests)
	d.mayDie()
	return nil
}

// unknown is an extend that took place or did not, and others' beside it.
func (d *fickle) unknown(r rtmr.Register, digests []rtmr.Digest) error {
	d.met["unknown"]++
	if d.chance(8) {
		d.other(r)
	}
	if d.random.IntN(2) == 0 {
		d.do(r, digests)
	}
	if d.chance(8) {
		d.other(r)
	}
	return rtmr.ErrUnknown
}

// model is a helper's life, or several.
type model struct {
	*testing.T
	*fickle
	dir   string
	room  bool
	e     *guest.Extender
	steps []string

	texts    map[string]string // by digest
	made     int
	answered map[string]bool // digests of measurements of which Extend said that it extended them
	kept     map[string]bool // of those that it said are in the journal
	refused  map[string]bool // and that are not
}

func newModel(t *testing.T, dir string, random *rand.Rand, room bool) *model {
	return &model{T: t, fickle: newFickle(random), dir: dir, room: room, texts: make(map[string]string),
		answered: make(map[string]bool), kept: make(map[string]bool), refused: make(map[string]bool)}
}

func (m *model) path() string { return filepath.Join(m.dir, "journal.cel") }

func (m *model) run() {
	m.alive(m.start)
	m.faults = true
	for range 20 + m.random.IntN(60) {
		m.step()
		if m.Failed() {
			return
		}
	}
	m.faults, m.blind = false, false
	clear(m.stuck)
	m.drain()
	m.stop()
	m.steps = append(m.steps, "end")
	for range 2 {
		m.start()
		for m.e.CatchUp(ctx) != nil {
		}
		if err := m.e.Check(ctx, modelRegisters...); err != nil {
			m.Error(err)
		}
		m.stop()
	}
	m.start()
	if r := m.e.Recovery(); r.Behind != 0 || r.Foreign != "" || r.Torn != 0 {
		m.Errorf("at the end: %+v", r)
	}
	m.check()
	m.stop()
}

// alive runs a part of the helper's life, in which it may die.
func (m *model) alive(f func()) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case errDied:
			m.met["died"]++
			m.steps = append(m.steps, "died")
			m.stop()
		default:
			panic(r)
		}
	}()
	f()
}

func (m *model) start() {
	e, err := guest.OpenExtender(ctx, m.fickle, m.path(), nil)
	if err != nil {
		if !m.faults {
			m.Fatal(err)
		}
		return
	}
	m.e = e
	r := e.Recovery()
	if r.Damaged != "" || r.Other != "" {
		m.Errorf("a sound journal was put aside: %+v", r)
	}
	if r.Foreign != "" {
		m.met["others at the start"]++
	}
}

// stop ends the helper's life as death does, end in order.
func (m *model) stop() {
	if m.e != nil {
		m.e.Close()
	}
	m.e = nil
}

func (m *model) end() {
	if m.e != nil {
		m.e.Stop()
	}
	m.e = nil
}

// step is one of the things that may happen.
func (m *model) step() {
	steps := []struct {
		name   string
		weight int
		do     func()
	}{
		{"extend", 12, m.extend},
		{"catch up", 2, func() { m.e.CatchUp(ctx) }},
		{"check", 2, func() { m.e.Check(ctx, modelRegisters[m.random.IntN(3)]) }},
		{"note", 1, func() { m.e.Note("kind", "text") }},
		{"others", 4, m.elsewhere},
		{"stuck", 1, func() { m.stuck[modelRegisters[m.random.IntN(3)]] = m.random.IntN(3) == 0 }},
		{"blind", 1, func() { m.blind = m.random.IntN(3) == 0 }},
		{"stop", 1, m.stop},
		{"end", 1, m.end},
		{"torn", 2, m.torn},
		{"fill", 1, m.fill},
		{"drain", 2, m.drain},
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := m.random.IntN(total)
	i := 0
	for ; n >= steps[i].weight; i++ {
		n -= steps[i].weight
	}
	m.steps = append(m.steps, steps[i].name)
	m.alive(func() {
		if m.e == nil {
			m.start()
		}
		if m.e != nil {
			steps[i].do()
		}
	})
}

func (m *model) batch() (batch []rtmr.Measurement) {
	n := 1 + m.random.IntN(6)
	if m.random.IntN(30) == 0 {
		n = 600
	}
	for range n {
		m.made++
		x := m.measurement(modelRegisters[m.random.IntN(len(modelRegisters))], fmt.Sprint("ours ", m.made))
		m.texts[string(x.Digests[0].Sum)] = fmt.Sprint("ours ", m.made)
		batch = append(batch, x)
	}
	return batch
}

// extend has the helper extend, for somebody who may not wait for it.
func (m *model) extend() {
	batch := m.batch()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if m.random.IntN(10) == 0 {
		cancel()
	}
	n, err := m.e.Extend(ctx, batch...)
	if errors.Is(err, guest.ErrJournalFull) {
		m.met["full"]++
	}
	if errors.Is(err, guest.ErrUndecided) {
		m.met["unknown for ever"]++
	}
	if errors.Is(err, guest.ErrJournalBroken) {
		m.Error(err)
	}
	for i, x := range batch {
		sum := string(x.Digests[0].Sum)
		m.answered[sum] = err == nil
		m.kept[sum], m.refused[sum] = i < n, i >= n
	}
}

// elsewhere has others extend, and the tap tell of it, or not.
func (m *model) elsewhere() {
	tells := m.random.IntN(2) == 0
	if m.random.IntN(3) == 0 {
		m.stop()
	}
	reg := modelRegisters[m.random.IntN(len(modelRegisters))]
	for range 1 + m.random.IntN(3) {
		if o := m.other(reg); tells && m.e != nil {
			m.e.Saw(o)
		}
	}
}

// torn has the process die within a write to the journal: of what another would have
// written in its place a part is there.
func (m *model) torn() {
	if m.e.CatchUp(ctx) != nil {
		return
	}
	m.stop()
	before, err := os.ReadFile(m.path())
	if err != nil {
		m.Fatal(err)
	}
	var theirs []guest.Other
	if m.random.IntN(2) == 0 {
		reg := modelRegisters[m.random.IntN(len(modelRegisters))]
		for range 1 + m.random.IntN(3) {
			theirs = append(theirs, m.other(reg))
		}
	}
	after := m.inAnotherWorld(before, theirs)
	if !bytes.HasPrefix(after, before) {
		m.Fatal("it did not append")
	}
	more := after[len(before):]
	if len(more) == 0 {
		return
	}
	f, err := os.OpenFile(m.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		m.Fatal(err)
	}
	if n, _ := f.Write(more[:m.random.IntN(len(more))]); n > 0 { // as much as there is room
		m.met["died in a write"]++
	}
	f.Close()
	if m.random.IntN(3) == 0 {
		m.other(modelRegisters[m.random.IntN(len(modelRegisters))])
	}
}

// inAnotherWorld returns what the journal would be after a batch.
func (m *model) inAnotherWorld(journal []byte, theirs []guest.Other) []byte {
	path := filepath.Join(m.TempDir(), "journal.cel")
	if err := os.WriteFile(path, journal, 0o600); err != nil {
		m.Fatal(err)
	}
	d := m.fickle.clone()
	if len(theirs) > 0 { // which the helper finds as it extends
		d = m.without(theirs)
	}
	e, err := guest.OpenExtender(ctx, d, path, nil)
	if err != nil {
		m.Fatal(err)
	}
	for _, o := range theirs {
		d.do(o.Register, d.measurement(o.Register, fmt.Sprint("others' ", o.PID)).Digests)
		e.Saw(o)
	}
	if _, err := e.Extend(ctx, m.batch()...); err != nil {
		m.Fatal(err)
	}
	e.Close()
	content, err := os.ReadFile(path)
	if err != nil {
		m.Fatal(err)
	}
	return content
}

// without returns the device as it was before the last extends by others.
func (m *model) without(theirs []guest.Other) *fickle {
	d := m.fickle.clone()
	reg := theirs[0].Register
	log := d.log[reg][:len(d.log[reg])-len(theirs)]
	for _, a := range d.alg {
		d.values[reg][a] = reg.ResetValue(a)
	}
	d.log[reg] = nil
	for _, sum := range log {
		text, ours := m.texts[sum]
		if !ours {
			text = m.othersText(sum)
		}
		d.do(reg, d.measurement(reg, text).Digests)
	}
	return d
}

// othersText finds the text of an extend by others.
func (m *model) othersText(sum string) string {
	for i := 1; i <= m.others; i++ {
		text := fmt.Sprint("others' ", i)
		if string(m.alg[0].AppendHash(nil, []byte(text))) == sum {
			return text
		}
	}
	m.Fatalf("nobody extended %x", sum)
	return ""
}

func (m *model) filler() string { return filepath.Join(filepath.Dir(m.dir), "filler") }

func (m *model) fill() {
	if !m.room {
		return
	}
	m.stop() // else it has room of its own
	f, err := os.Create(m.filler())
	if err != nil {
		m.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
}

func (m *model) drain() { os.Remove(m.filler()) }

// told is what a journal tells of a register.
type told struct {
	sums    []string // of all records, in order
	ours    map[string]bool
	unknown map[string]bool
	value   map[rtmr.Alg]rtmr.Hex // folded from the last base
	foreign int                   // bases for what others extended
	digests [][]rtmr.Digest
}

// tells reads the journal, and folds each register from its last base.
func (m *model) tells() map[rtmr.Register]*told {
	content, err := os.ReadFile(m.path())
	if err != nil {
		m.Fatal(err)
	}
	registers := make(map[rtmr.Register]*told)
	for _, r := range modelRegisters {
		registers[r] = &told{ours: make(map[string]bool), unknown: make(map[string]bool), value: make(map[rtmr.Alg]rtmr.Hex)}
	}
	for x, err := range cel.NewReader(bytes.NewReader(content), cel.TLV).Measurements() {
		if err != nil {
			m.Fatal(err)
		}
		if !x.NoAction {
			registers[x.Register].add(&x)
			continue
		}
		b, ok, err := evidence.ParseBase(x.Entry.Data())
		if err != nil {
			m.Fatal(err)
		}
		for r := range b.Registers[rtmr.SHA256] {
			if ok {
				registers[r].rebase(&b, r)
				m.count(&b, r)
			}
		}
	}
	return registers
}

func (m *model) count(b *evidence.Base, r rtmr.Register) {
	if b.Unknown[r] > 0 {
		m.met["bases with unknown"]++
	}
}

func (t *told) add(x *rtmr.Measurement) {
	sum := string(x.Digests[0].Sum)
	t.sums = append(t.sums, sum)
	t.ours[sum] = x.Entry.Type() != guest.OtherType
	digests := make([]rtmr.Digest, len(x.Digests))
	for i, d := range x.Digests {
		digests[i] = rtmr.Digest{Alg: d.Alg, Sum: bytes.Clone(d.Sum)}
	}
	t.digests = append(t.digests, digests)
	t.fold(digests)
}

func (t *told) fold(digests []rtmr.Digest) {
	for _, d := range digests {
		d.Alg.Extend(t.value[d.Alg], d.Sum)
	}
}

func (t *told) rebase(b *evidence.Base, r rtmr.Register) {
	if b.Reason == evidence.Foreign {
		t.foreign++
	}
	n := len(t.sums) - b.Behind[r]
	for _, sum := range t.sums[n-b.Unknown[r] : n] {
		t.unknown[sum] = true
	}
	for a, bank := range b.Registers {
		t.value[a] = bytes.Clone(bank[r])
	}
	for _, digests := range t.digests[n:] {
		t.fold(digests)
	}
}

// check holds the journal against what the device did.
func (m *model) check() {
	registers := m.tells()
	journaled := make(map[string]bool)
	for _, r := range modelRegisters {
		t := registers[r]
		m.checkRegister(r, t)
		for _, sum := range t.sums {
			if !t.ours[sum] {
				m.met["explained"]++
				continue
			}
			if journaled[sum] {
				m.Errorf("%s: %q is in the journal twice", r, m.texts[sum])
			}
			journaled[sum] = true
		}
	}
	for sum, kept := range m.kept {
		if kept && !journaled[sum] {
			m.Errorf("%q is not in the journal", m.texts[sum])
		}
	}
	for sum, refused := range m.refused {
		if refused && journaled[sum] {
			m.Errorf("%q is in the journal, and Extend said it was not", m.texts[sum])
		}
	}
}

func (m *model) checkRegister(r rtmr.Register, t *told) {
	if m.kind != "tpm" || len(t.sums) > 0 { // which others may extend as they like, before we do
		for a, value := range m.values[r] {
			if !bytes.Equal(t.value[a], value) {
				m.Errorf("%s %s holds %s, the journal folds to %s", a, r, value, t.value[a])
			}
		}
	}
	others := 0
	for _, sum := range m.log[r] {
		if _, ours := m.texts[sum]; !ours {
			others++
		}
	}
	if t.foreign > others {
		m.Errorf("%s: %d bases for what others extended, who did it %d times", r, t.foreign, others)
	}
	times := make(map[string]int)
	var did, says []string // of ours, in order
	for _, sum := range m.log[r] {
		if times[sum]++; t.ours[sum] {
			did = append(did, sum)
		}
	}
	for _, sum := range t.sums {
		if !t.ours[sum] {
			continue
		}
		switch n := times[sum]; {
		case n > 1:
			m.Errorf("%s was extended by %q %d times", r, m.texts[sum], n)
		case n == 1:
			says = append(says, sum)
		case !t.unknown[sum]:
			m.Errorf("%s was not extended by %q", r, m.texts[sum])
		case m.answered[sum]:
			m.Errorf("%s was not extended by %q, and that was answered for", r, m.texts[sum])
		case !errors.Is(m.e.Undecided(m.measurement(r, m.texts[sum])), guest.ErrUndecided):
			m.Errorf("%s was not extended by %q, and that counts as decided", r, m.texts[sum])
		}
	}
	if !slices.Equal(did, says) {
		m.Errorf("%s: not in the journal's order", r)
	}
	for sum := range maps.Keys(times) {
		if _, ours := m.texts[sum]; ours && !t.ours[sum] {
			m.Errorf("%s was extended by %q, which is not in the journal", r, m.texts[sum])
		}
	}
}
