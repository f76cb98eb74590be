//go:build linux

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/rtmr"
)

// past is what a journal tells of the helpers before this one: what they extended,
// beside the registers' values, which are the Extender's to look after.
type past struct {
	skipped int                         // entries of the kernel's list that count as extended and are not in it,
	trail   Trail                       // and those after them that are
	events  int                         // of the firmware's log
	own     map[string]bool             // types of own events,
	ownDone bool                        // which are all
	lost    bool                        // a journal of this boot was lost
	over    *takeover                   // what has to be found out
	keys    map[string]rtmr.Measurement // of applications' measurements
	unknown map[string]bool             // keys of those of which nobody knows whether they were extended
	last    map[rtmr.Register][]string  // keys, or "", of each register's last measurements
}

func newPast() *past {
	return &past{own: make(map[string]bool), keys: make(map[string]rtmr.Measurement), unknown: make(map[string]bool), last: make(map[rtmr.Register][]string)}
}

// add takes the journal's next record, whose memory is the journal's.
func (p *past) add(m rtmr.Measurement) {
	key := ""
	switch entry := m.Entry.(*cel.Entry); entry.ContentType() {
	case cel.ContentIMATemplate:
		p.trail.Add(entry.Inner().(*ima.Entry))
	case cel.ContentPCClient:
		if m.NoAction {
			p.note(entry.Data())
			p.base(entry.Data())
		} else {
			p.events++
		}
	case cel.ContentTallystick:
		switch kind := entry.Type(); {
		case m.NoAction:
		case kind == evidence.LeftOutType:
			p.leftOut(entry.Data())
		case kind == evidence.GapType:
		case kind == ownEnd:
			p.ownDone = true
		case strings.HasPrefix(kind, OwnType):
			p.own[strings.Clone(kind)] = true
		default:
			key = p.remember(m)
		}
	}
	if !m.NoAction {
		p.last[m.Register] = append(p.last[m.Register], key)
		if n := len(p.last[m.Register]); n == 2*maxBatch {
			p.last[m.Register] = append(p.last[m.Register][:0], p.last[m.Register][n-maxBatch:]...)
		}
	}
}

// base takes a base, which may say that nobody knows of some measurements whether they
// were extended.
func (p *past) base(data []byte) {
	if b, ok, err := evidence.ParseBase(data); ok && err == nil {
		p.doubt(b.Unknown, b.Behind)
	}
}

// doubt says that nobody knows of so many of the registers' last measurements before
// those that are behind.
func (p *past) doubt(unknown, behind map[rtmr.Register]int) {
	for reg, n := range unknown {
		keys := p.last[reg]
		end := max(0, len(keys)-behind[reg])
		for _, key := range keys[max(0, end-n):end] {
			if key != "" {
				p.unknown[key] = true
			}
		}
	}
}

// note takes a note. One of a takeover says where the entries behind it begin.
func (p *past) note(data []byte) {
	text, ok := bytes.CutPrefix(data, []byte(noteMagic))
	if !ok {
		return
	}
	kind, about, _ := bytes.Cut(text, []byte{0})
	switch string(kind) {
	case strings.TrimPrefix(evidence.LeftOutType, OwnType):
		p.leftOut(about)
	case takenOver:
		var t takeover
		if json.Unmarshal(about, &t) == nil {
			p.skipped, p.trail = t.Entries, nil
			p.lost = p.lost || t.Lost
		}
	}
}

// leftOut takes an entry that was not extended.
func (p *past) leftOut(data []byte) {
	var left leftOutData
	if json.Unmarshal(data, &left) == nil && len(left.Entry) >= 8 {
		p.trail.add(left.Entry)
	}
}

// remember notes and returns the key of an application's measurement.
func (p *past) remember(m rtmr.Measurement) string {
	var app App
	if !strings.HasPrefix(m.Entry.Type(), AppType) || json.Unmarshal(m.Entry.Data(), &app) != nil || app.Key == "" {
		return ""
	}
	m.Entry = appEntry{m.Entry.Type(), bytes.Clone(m.Entry.Data())}
	m.Digests = nil
	p.keys[app.Key] = m
	return app.Key
}

// delivered returns the trail of all entries that count as extended. Those that are
// not in the journal are in the copy of the list, or at the list's head; where they
// are in neither, others that are no entry's stand for them.
func (p *past) delivered(ctx context.Context, cfg *Config) (Trail, error) {
	if p.skipped == 0 {
		return p.trail, nil
	}
	first, err := copied(cfg.folder(), p.skipped)
	if err == nil && len(first) < p.skipped {
		list := OpenList(cfg.IMADir, nil, nil)
		defer list.Close()
		var batch []rtmr.Measurement
		batch, err = nextOf(ctx, list, p.skipped)
		first = TrailOf(batch)
	}
	if missing := p.skipped - len(first); missing > 0 {
		first = append(first, make(Trail, missing)...)
	}
	return append(first, p.trail...), err
}

// copied returns the trail of the first n entries of the copy, or of those that it
// has.
func copied(folder string, n int) (t Trail, err error) {
	s, err := openSpool(folder)
	if err != nil {
		return nil, err
	}
	defer s.file.Close()
	c := cutter{file: s.file}
	for len(t) < n {
		var e ima.Entry
		record, err := c.next(&e)
		if record == nil || err != nil {
			return t, nil // what the copy has not, the list has
		}
		t.Add(&e)
	}
	return t, nil
}
