package testlogs

import (
	"encoding/json"
	"testing"
)

// CorpusFile is a file of ../shared/corpus, as its index describes it.
type CorpusFile struct {
	File     string
	Kind     string
	Expected struct {
		Events int
		Banks  map[string]map[string]string // by an independent parser, and by whoever published the file
	}
}

// Corpus returns the index, nil if the corpus is not here.
func Corpus(t testing.TB) (files []CorpusFile) {
	t.Helper()
	index, ok := Shared(t, "corpus", "index.json")
	if !ok {
		return nil
	}
	if err := json.Unmarshal(Read(t, index), &files); err != nil {
		t.Fatal(err)
	}
	return files
}

// Format returns the format of a log in tally's words, "" for other files.
func (f CorpusFile) Format() string {
	return map[string]string{"ccel": "ccel", "tcg-eventlog": "tcg2", "ima-binary": "ima",
		"ima-ascii": "ima-ascii", "dstack-eventlog-json": "dstack"}[f.Kind]
}

// CorpusLog returns one of the corpus' logs, and skips the test without it.
func CorpusLog(t testing.TB, file string) Log {
	t.Helper()
	for _, f := range Corpus(t) {
		if f.File == file && f.Format() != "" {
			path, _ := Shared(t, "corpus", f.File)
			return Log{"corpus/" + f.File, f.Format(), Read(t, path)}
		}
	}
	t.Skip("../shared/corpus is not here")
	return Log{}
}

func corpusLogs(t testing.TB) (logs []Log) {
	t.Helper()
	for _, f := range Corpus(t) {
		if f.Format() != "" {
			logs = append(logs, CorpusLog(t, f.File))
		}
	}
	return logs
}
