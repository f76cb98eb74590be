package launch

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

// pageRun is pages of one kind, one behind the other: a part.
type pageRun struct {
	Part
	content hash.Hash // nil where it is not measured
}

// add adds a page, to the run before it if it goes on with that. content is nil
// where it is not measured.
func (l *igvmLoader) add(name string, typ PageType, gpa uint64, content []byte) {
	if r := l.run; r == nil || r.Name != name || r.Type != typ || r.GPA+r.Size != gpa {
		l.flush()
		l.run = &pageRun{Part: Part{Name: name, Type: typ, GPA: gpa}}
		if content != nil {
			l.run.content = sha256.New()
		}
	}
	l.run.Size += PageSize
	if content == nil {
		l.pages.add(typ, gpa, nil)
		return
	}
	l.run.content.Write(content)
	sum := sha512.Sum384(content)
	l.pages.add(typ, gpa, sum[:])
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
