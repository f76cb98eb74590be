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
	gap     bool                        // a gap was told of
	lost    bool                        // a journal of this boot was lost
	over    *takeover                   // what has to be found out
	keys    map[string]rtmr.Measurement // of applications' measurements
}

func newPast() *past {
	return &past{own: make(map[string]bool), keys: make(map[string]rtmr.Measurement)}
}

// add takes the journal's next record, whose memory is the journal's.
func (p *past) add(m rtmr.Measurement) {
	switch entry := m.Entry.(*cel.Entry); entry.ContentType() {
	case cel.ContentIMATemplate:
		p.trail.Add(entry.Inner().(*ima.Entry))
	case cel.ContentPCClient:
		if m.NoAction {
			p.note(m)
		} else {
			p.events++
		}
	case cel.ContentTallystick:
		switch kind := entry.Type(); {
		case m.NoAction:
		case kind == evidence.LeftOutType:
			p.leftOut(entry.Data())
		case kind == evidence.GapType:
			p.gap = true
		case kind == ownEnd:
			p.ownDone = true
		case strings.HasPrefix(kind, OwnType):
			p.own[strings.Clone(kind)] = true
		default:
			p.remember(m)
		}
	}
}

// note takes a note. One of a takeover says where the entries behind it begin.
func (p *past) note(m rtmr.Measurement) {
	n, _ := parseNote(m)
	switch n.Kind {
	case strings.TrimPrefix(evidence.LeftOutType, OwnType):
		p.leftOut(n.About)
	case strings.TrimPrefix(evidence.GapType, OwnType):
		p.gap = true
	case takenOver:
		var t takeover
		if json.Unmarshal(n.About, &t) == nil {
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

// remember notes the key of an application's measurement.
func (p *past) remember(m rtmr.Measurement) {
	var app App
	if strings.HasPrefix(m.Entry.Type(), AppType) && json.Unmarshal(m.Entry.Data(), &app) == nil && app.Key != "" {
		m.Entry = appEntry{m.Entry.Type(), bytes.Clone(m.Entry.Data())}
		m.Digests = nil
		p.keys[app.Key] = m
	}
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
