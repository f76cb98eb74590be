package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/quote"
)

// errBundle is for commands that take one log.
var errBundle = errors.New("an evidence bundle, which is no log: tally reconcile takes it as it is, tally show lists what is in it, tally unpack writes that to files")

// isBundle tells a bundle by a file's first bytes. Standard input, of which no byte
// can be given back, is none.
func isBundle(path string) bool {
	if path == "-" {
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return false // whoever opens it next will say so
	}
	defer file.Close()
	var head [64]byte
	n, _ := io.ReadFull(file, head[:])
	return evidence.Is(head[:n])
}

// takeBundle makes a single argument, and no quote beside it, the quote: a bundle,
// or what comes on standard input and has to be one.
func (f *evidenceFlags) takeBundle(paths []string) (logs []string) {
	if f.quote != "" || f.values != "" || len(paths) != 1 || (paths[0] != "-" || f.ear != "") && !isBundle(paths[0]) {
		return paths
	}
	f.quote, f.alone = paths[0], true
	return nil
}

// errNoQuote is for logs alone.
var errNoQuote = errors.New("--quote FILE is missing (or --values FILE, where there are values and no quote); a bundle is taken alone")

// bundledLogs are the logs that came with a quote: those to fold, and those to hold
// against the journal.
func bundledLogs(q *quote.Quote) (folded, checked []logFile) {
	for _, l := range q.Logs {
		file := logFile{path: l.Name, data: l.Data}
		if q.Bundle != nil {
			file.format = map[string]string{evidence.ItemIMAList: "ima", evidence.ItemJournal: "cel-tlv"}[l.Name]
		}
		if l.Checked {
			checked = append(checked, file)
		} else {
			folded = append(folded, file)
		}
	}
	return folded, checked
}

// statedKernel is the kernel's release by a bundle's statement, "" if it has none.
func statedKernel(q *quote.Quote) string {
	if q.Bundle == nil || !ima.IsRelease(q.Bundle.Statement.Kernel) {
		return ""
	}
	return q.Bundle.Statement.Kernel
}

// readBundle reads a file that has to be a bundle.
func readBundle(path string) (*evidence.Bundle, error) {
	data, err := readEvidence(path)
	if err != nil {
		return nil, err
	}
	b, err := evidence.Read(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// bundleReport is what show --json prints of a bundle.
type bundleReport struct {
	Items     []itemReport        `json:"items"`
	Statement *evidence.Statement `json:"statement"`
}

type itemReport struct {
	Item   string `json:"item"`
	Type   string `json:"type"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// showBundle lists what is in a bundle, and what its sender says of it.
func showBundle(w io.Writer, path string, asJSON bool) error {
	b, err := readBundle(path)
	if err != nil {
		return err
	}
	items, err := b.Items()
	if err != nil {
		return err
	}
	report := bundleReport{Items: []itemReport{}, Statement: &b.Statement}
	for _, item := range items {
		sum := sha256.Sum256(item.Value)
		report.Items = append(report.Items, itemReport{item.Key, item.Type, len(item.Value), hex.EncodeToString(sum[:])})
	}
	if asJSON {
		return json.NewEncoder(w).Encode(report)
	}
	for _, item := range report.Items {
		fmt.Fprintf(w, "%-17s %10d bytes  %.12s  %s\n", item.Item, item.Size, item.SHA256, item.Type)
	}
	statement, err := json.MarshalIndent(b.Statement, "  ", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nIts sender says, and nothing signs that:\n  %s\n", printableLines(statement))
	return err
}

// printableLines makes JSON fit for a terminal: encoding/json escapes control
// characters, but not those that Unicode has beside them.
func printableLines(text []byte) string {
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(printable(line), `\\`, `\`) // JSON's own are escapes already
	}
	return strings.Join(lines, "\n")
}

func newUnpack() *cobra.Command {
	return &cobra.Command{
		Use:   "unpack BUNDLE FOLDER",
		Short: "Write the parts of an evidence bundle to files: quote, logs, what its sender says",
		Long: `Unpack writes each part of an evidence bundle into a file of its own, byte for
byte, for other commands and other people's tools. A file that is there already
is not overwritten.`,
		Example: `  tally unpack evidence.cmw parts
  tally show parts/cel-journal.bin`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(args[0])
			if err != nil {
				return err
			}
			return unpack(cmd.OutOrStdout(), b, args[1])
		},
	}
}

func unpack(w io.Writer, b *evidence.Bundle, folder string) error {
	items, err := b.Items()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	for _, item := range items {
		path := filepath.Join(folder, item.Key+extension(item.Type)) // Read lets no other keys pass
		if err := writeNew(path, item.Value); err != nil {
			return err
		}
		fmt.Fprintln(w, printable(path))
	}
	return nil
}

func extension(mediaType string) string {
	switch {
	case strings.HasSuffix(mediaType, "+json"):
		return ".json"
	case mediaType == "application/pkix-cert":
		return ".der"
	}
	return ".bin"
}

func writeNew(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}
