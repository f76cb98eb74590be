package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// replayReport is what replay --json prints (DESIGN.md, the JSON contract).
type replayReport struct {
	Logs      []logReport      `json:"logs"`
	Registers []replay.Value   `json:"registers"`
	Findings  []replay.Finding `json:"findings,omitempty"`
	Error     string           `json:"error,omitempty"`
}

type logReport struct {
	Path     string        `json:"path"`
	Format   string        `json:"format"`
	Events   int           `json:"events"`
	Warnings []string      `json:"warnings"`
	Checks   replay.Checks `json:"checks"`
	Copy     *copyReport   `json:"copy,omitempty"`

	Incidents *incidents `json:"incidents,omitempty"` // of a journal that tells of some

	sha256 string // of the file, if inputFlags.digests
}

// replayFlags are replay's own.
type replayFlags struct {
	into, mrtd string
	overlap    bool
}

func newReplay() *cobra.Command {
	var in inputFlags
	var own replayFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replay LOG...",
		Short: "Fold logs, in order of layers, into register values",
		Long: `Replay folds logs into the values that the registers have if the logs are true:
first the firmware's, then IMA's, then an application's. Each entry whose
digest can be recomputed from its own data is held against them.

Exit status: 0 folded; 1 a log contradicts itself or another; 2 input or usage.`,
		Example: `  tally replay boot.bin ima.bin
  tally replay --bank sha384 --into rtmr ccel.bin ima.bin app.cel
  tally replay --overlap boot.bin ima-monday.bin ima-tuesday.bin`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := own.options(&in)
			if err != nil {
				return err
			}
			if err := checkPaths(args, own.overlap); err != nil {
				return err
			}
			fold := replay.New(opts)
			report, err := foldLogs(fold, &in, filesOf(args), own.overlap)
			print := printReplay
			if asJSON {
				print = printReplayJSON
			}
			if perr := print(cmd.OutOrStdout(), report); perr != nil {
				return perr
			}
			if err == nil && len(report.Findings) > 0 {
				return errContradiction
			}
			return err
		},
	}
	in.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&own.into, "into", "", "rtmr or rem: fold PCR-indexed logs into a TD's or a realm's registers by the UEFI rule")
	cmd.Flags().StringVar(&own.mrtd, "mrtd", "", "a TD's MRTD in hexadecimal, which no log holds and its boot_aggregate is over")
	cmd.Flags().BoolVar(&own.overlap, "overlap", false, "IMA lists are parts of one, read one after another: fold once what one has in common with the end of the last")
	complete(cmd, "into", "rtmr", "rem")
	return cmd
}

func (f *replayFlags) options(in *inputFlags) (opts replay.Options, err error) {
	if err := in.check(); err != nil {
		return opts, err
	}
	if opts.Banks, err = in.algs(); err != nil {
		return opts, err
	}
	switch f.into {
	case "":
	case "rtmr":
		opts.Into = rtmr.KindRTMR
	case "rem":
		opts.Into = rtmr.KindREM
	default:
		return opts, fmt.Errorf("--into %q, expected rtmr or rem", f.into)
	}
	opts.MRTD, err = parseMRTD(f.mrtd)
	return opts, err
}

func parseMRTD(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	mrtd, err := hex.DecodeString(s)
	if err != nil || len(mrtd) != rtmr.SHA384.Size() {
		return nil, fmt.Errorf("--mrtd %q, expected %d hexadecimal digits", s, 2*rtmr.SHA384.Size())
	}
	return mrtd, nil
}

// logFile is a log to be opened: a file, or what came inside another one.
type logFile struct {
	path   string
	data   []byte // nil for a file
	format string // "" if not known
}

func filesOf(paths []string) (files []logFile) {
	for _, path := range paths {
		files = append(files, logFile{path: path})
	}
	return files
}

// openFile is open, for a log that may have come inside another file.
func (f *inputFlags) openFile(file logFile, signs ima.Signs) (*log, error) {
	if file.data == nil {
		return f.open(file.path, signs)
	}
	in := *f
	in.format = cmp.Or(f.format, file.format)
	return in.read(file.path, io.NopCloser(bytes.NewReader(file.data)), signs)
}

// foldLogs folds the logs up to the first fault, and reports what it has.
func foldLogs(fold *replay.Fold, in *inputFlags, files []logFile, overlap bool) (*replayReport, error) {
	report := &replayReport{Logs: []logReport{}}
	signs := ima.Signs{Kernel: cmp.Or(in.kernel, in.statedKernel)}
	var parts *replay.Parts
	if overlap {
		parts = &replay.Parts{}
	}
	err := func() error {
		for i, file := range files {
			l, err := foldLog(fold, in, file, &signs, parts)
			if l != nil {
				if first, again := file.givenBefore(files[:i]); again && !(overlap && isIMA(l.Format)) {
					l.Warnings = append(l.Warnings, fmt.Sprintf("it is the same file as %s, which was given before: its events are folded again", printable(first)))
				}
				report.Logs = append(report.Logs, *l)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}()
	if n := len(report.Logs); n > 0 {
		report.Logs[n-1].Warnings = append(report.Logs[n-1].Warnings, fold.Warnings()...)
	}
	report.Registers, report.Findings = fold.Registers(), fold.Findings()
	if err != nil {
		report.Error = err.Error()
	}
	return report, err
}

// givenBefore returns under what name a file was given before, if it was. What
// is no file, as standard input and pipes are not, has other content each time.
func (file logFile) givenBefore(files []logFile) (first string, again bool) {
	info, err := os.Stat(file.path)
	if file.data != nil || err != nil || !info.Mode().IsRegular() {
		return "", false
	}
	for _, f := range files {
		if other, err := os.Stat(f.path); f.data == nil && err == nil && os.SameFile(info, other) {
			return f.path, true
		}
	}
	return "", false
}

func isIMA(format string) bool { return format == "ima" || format == "ima-ascii" }

// foldLog folds one log, and learns from it what tells of the kernel.
func foldLog(fold *replay.Fold, in *inputFlags, file logFile, signs *ima.Signs, parts *replay.Parts) (*logReport, error) {
	l, err := in.openFile(file, *signs)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	entries := l.Measurements()
	told := incidents{bundled: file.data != nil && file.path == evidence.ItemJournal}
	switch l.format {
	case "cel-tlv", "cel-json", "cel-cbor":
		entries = told.watch(entries)
	case "tcg12", "tcg2":
		if in.kernel == "" {
			entries = watchKernel(entries, &signs.Kernel)
		}
	case "ima", "ima-ascii":
		if parts != nil {
			skip, sure, err := in.overlap(file, *signs, parts)
			if err != nil {
				return nil, err
			}
			if !sure {
				l.notes = append(l.notes, "it begins with violations with which the list before ends: whether they are the same or happened again cannot be told, and they are folded again")
			}
			if skip > 0 {
				entries = without(entries, skip)
				l.notes = append(l.notes, fmt.Sprintf("its first %d entries are the last of the list before, and were folded there", skip))
			}
		}
	}
	n, err := fold.Log(entries)
	signs.Banks = fold.BootBanks()
	report := &logReport{Path: l.path, Format: l.format, Events: n, Warnings: append([]string{}, l.Warnings()...), Checks: fold.Checks()}
	if told.total() > 0 {
		report.Incidents = &told
	}
	if err != nil {
		return report, l.fault(err)
	}
	report.sha256, err = l.whole.sum()
	return report, err
}

// overlap reads an IMA list once, to tell how many of its entries are the end
// of the parts before.
func (f *inputFlags) overlap(file logFile, signs ima.Signs, parts *replay.Parts) (skip int, sure bool, err error) {
	l, err := f.openFile(file, signs)
	if err != nil {
		return 0, false, err
	}
	defer l.Close()
	skip, sure = parts.Overlap(l.Measurements())
	return skip, sure, nil
}

// checkPaths refuses what cannot be read: standard input twice, and with
// --overlap what is no file at all.
func checkPaths(paths []string, overlap bool) error {
	if i := slices.Index(paths, "-"); i >= 0 && slices.Contains(paths[i+1:], "-") {
		return errors.New("standard input can be one of the files, not two")
	}
	for _, path := range paths {
		if !overlap {
			break
		}
		if path == "-" {
			return errors.New("--overlap reads an IMA list twice, which standard input cannot be")
		}
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s: --overlap reads an IMA list twice, which only a file can be", path)
		}
	}
	return nil
}

// without leaves out a log's first n entries.
func without(entries iter.Seq2[rtmr.Measurement, error], n int) iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for m, err := range entries {
			if err == nil && m.Index < n {
				continue
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// bootedKernel finds the release in the image's name where a boot loader says
// that it boots it: GRUB's kernel command line, or its command "linux". A menu
// entry, which GRUB logs whole whether it is chosen or not, says nothing.
var bootedKernel = regexp.MustCompile(`^(?:kernel_cmdline: |grub_kernel_cmdline |grub_cmd:? (?:linux|linux16|linuxefi) |BOOT_IMAGE=)[^ ]*vmlinuz-([0-9A-Za-z.+~_-]+)(?: |$)`)

// watchKernel notes the kernel's release where a boot log names the booted
// image: the last one, for a boot that fails is tried again.
func watchKernel(entries iter.Seq2[rtmr.Measurement, error], release *string) iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for m, err := range entries {
			if err == nil {
				if found := bootedKernel.FindStringSubmatch(m.Entry.Detail()); found != nil && ima.IsRelease(found[1]) {
					*release = found[1]
				}
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func printReplayJSON(w io.Writer, report *replayReport) error {
	return json.NewEncoder(w).Encode(report)
}

func printReplay(out io.Writer, report *replayReport) error {
	w := bufio.NewWriter(out)
	for _, l := range report.Logs {
		fmt.Fprintf(w, "%s: %s, %s (%s)\n", l.Path, l.Format, events(l.Events), checksText(l.Checks))
		for _, text := range l.Warnings {
			fmt.Fprintf(w, "  %s %s\n", caution("warning:"), text)
		}
		l.Incidents.print(w)
	}
	for _, v := range report.Registers {
		fmt.Fprintf(w, "%-6s %-8s %s  %s\n", v.Register, v.Alg, v.Value, events(v.Events))
	}
	printFindings(w, report)
	return w.Flush()
}

func events(n int) string {
	if n == 1 {
		return "1 event"
	}
	return strconv.Itoa(n) + " events"
}

func checksText(c replay.Checks) string {
	contradicted := fmt.Sprintf("%d contradicted", c.Contradicting)
	if c.Contradicting > 0 {
		contradicted = bad(contradicted)
	}
	return fmt.Sprintf("by their own data %d verified, %s, %d not checkable", c.Verified, contradicted, c.Uncheckable)
}

func printFindings(w io.Writer, report *replayReport) {
	printEach(w, "", report.Logs, report.Findings)
}

// printEach prints findings, and of one entry that has the same in several banks its
// line once.
func printEach(w io.Writer, indent string, logs []logReport, findings []replay.Finding) {
	for i, f := range findings {
		if i == 0 || f.Log != findings[i-1].Log || f.Entry != findings[i-1].Entry || f.Text != findings[i-1].Text {
			fmt.Fprintf(w, "%s%s: entry %d, offset %d, %s %s %s: %s\n", indent, logs[f.Log].Path, f.Entry, f.Offset, f.Register, f.Type, f.Detail, bad(f.Text))
		}
		printDigests(w, &f)
	}
}

// printDigests prints the digests that part.
func printDigests(w io.Writer, f *replay.Finding) {
	if f.Kind == "copy" && len(f.Recorded) == 0 {
		return // the data part
	}
	other := "computed"
	if f.Kind == "copy" {
		other = "copied  "
	}
	fmt.Fprintf(w, "  recorded %s:%s\n  %s %s:%s\n", f.Alg, f.Recorded, other, f.Alg, f.Computed)
}
