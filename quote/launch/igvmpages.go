package launch

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

// pageOf is a page that a file has. The content is nil where it is not measured.
type pageOf struct {
	name    string // of its part
	typ     PageType
	gpa     uint64
	content []byte
}

// pageRun is pages of one kind, one behind the other: a part.
type pageRun struct {
	Part
	content hash.Hash // nil where it is not measured
}

// add adds a page, to the run before it if it goes on with that.
func (l *igvmLoader) add(p pageOf) {
	if r := l.run; r == nil || r.Name != p.name || r.Type != p.typ || r.GPA+r.Size != p.gpa {
		l.flush()
		l.run = &pageRun{Part: Part{Name: p.name, Type: p.typ, GPA: p.gpa}}
		if p.content != nil {
			l.run.content = sha256.New()
		}
	}
	l.run.Size += PageSize
	if p.content == nil {
		l.pages.add(p.typ, p.gpa, nil)
		return
	}
	l.run.content.Write(p.content)
	sum := sha512.Sum384(p.content)
	l.pages.add(p.typ, p.gpa, sum[:])
}

// flush ends the run.
func (l *igvmLoader) flush() {
	if l.run == nil {
		return
	}
	if l.run.content != nil {
		l.run.Content = l.run.content.Sum(nil)
	}
	l.pages.part(l.run.Part)
	l.run = nil
}
