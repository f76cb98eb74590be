package ima

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tallystick/rtmr"
)

// Signs is what stands outside a list and tells of the kernel that wrote it.
type Signs struct {
	// Kernel is the kernel's release as uname -r prints it, "" if not known.
	Kernel string
	// Banks are the banks of the boot log, and so of the TPM; nil if not known.
	Banks []rtmr.Alg
}

// guessEntries is how many entries from a list's beginning tell something.
const guessEntries = 32

// GuessProfile tells by a list's first entries and by other signs how the
// kernel deviates, and gives a reason for each deviation. The entries are
// those of a reader with the zero Profile. A list that shows nothing gets the
// zero Profile, and known is false if nothing tells the kernel of a SHA-1 list
// either: then how it extended the other banks is an assumption.
func GuessProfile(entries iter.Seq2[rtmr.Measurement, error], s Signs) (p Profile, reasons []string, known bool) {
	l := look(entries)
	if l.aggregateAt.Kind() == rtmr.KindPCR && l.aggregateAt.Index() < rtmr.NumRTMRs {
		// Kconfig's IMA_MEASURE_PCR_IDX is 8 to 14, and no policy moves boot_aggregate.
		p.RTMRColumn, p.ViolationZero = true, true
		reasons = append(reasons, fmt.Sprintf("rtmr-column,violation-zero: boot_aggregate stands under register %d, where only IMA patched for RTMRs puts it", l.aggregateAt.Index()))
	}
	if l.kernel != "" {
		s.Kernel = l.kernel
	}
	switch {
	case l.alg != rtmr.SHA1: // per-bank lists came with per-bank hashes
	case before5_8(s.Kernel):
		p.PaddedSHA1 = true
		reasons = append(reasons, fmt.Sprintf("padded-sha1: kernel %s, before 5.8", s.Kernel))
	case l.aggregate == rtmr.SHA1 && slices.Contains(s.Banks, rtmr.SHA256) && l.files > 0 && l.sha1Files == 0:
		p.PaddedSHA1 = true
		reasons = append(reasons, "padded-sha1: boot_aggregate is in SHA-1 though the TPM has a SHA-256 bank and files are hashed otherwise, as before kernel 5.8")
	case isDebian6_1(s.Kernel):
		p.PaddedBanks = []rtmr.Alg{rtmr.SHA384, rtmr.SHA512}
		reasons = append(reasons, fmt.Sprintf("padded-sha1:sha384,padded-sha1:sha512: kernel %s, Debian's 6.1, has SHA-512 as a module, too late for IMA", s.Kernel))
	}
	return p, reasons, s.Kernel != "" || l.alg != rtmr.SHA1 || len(reasons) > 0
}

// looked is what a list's first entries show.
type looked struct {
	alg         rtmr.Alg // of the template hashes
	aggregate   rtmr.Alg // of boot_aggregate
	aggregateAt rtmr.Register
	kernel      string // by the critical data "kernel_version"
	files       int    // entries with a file's digest
	sha1Files   int    // of those, in SHA-1
}

func look(entries iter.Seq2[rtmr.Measurement, error]) (l looked) {
	n := 0
	for m, err := range entries {
		e, ok := m.Entry.(*Entry)
		if err != nil || !ok || n == guessEntries {
			break
		}
		n++
		l.alg = e.recorded.Alg
		if d, ok := e.BootAggregate(); ok {
			l.aggregate, l.aggregateAt = d.Alg, m.Register
			continue
		}
		if release, ok := e.kernelVersion(); ok {
			l.kernel = release
			continue
		}
		if alg, ok := e.fileDigestAlg(); ok && !e.Violation() {
			l.files++
			if alg == rtmr.SHA1 {
				l.sha1Files++
			}
		}
	}
	return l
}

// kernelVersion returns the release that the kernel measures as critical data
// (security/integrity/ima/ima_main.c, ima_init).
func (e *Entry) kernelVersion() (string, bool) {
	if e.template != "ima-buf" || e.Name() != "kernel_version" {
		return "", false
	}
	for _, f := range e.fields() {
		if f.id == "buf" && IsRelease(string(f.data)) {
			return string(f.data), true
		}
	}
	return "", false
}

// IsRelease reports whether s can be a kernel's release as uname -r prints it:
// a version, and no more than the characters that builds put behind one.
// Whoever wrote a log may have chosen what it says of the kernel.
func IsRelease(s string) bool { return releaseForm.MatchString(s) }

// 64 bytes are what utsname has for a release (include/uapi/linux/utsname.h).
var releaseForm = regexp.MustCompile(`^[0-9]{1,3}\.[0-9]{1,3}[0-9A-Za-z.+~_-]{0,57}$`)

// fileDigestAlg returns the algorithm of the entry's file digest.
func (e *Entry) fileDigestAlg() (rtmr.Alg, bool) {
	for _, f := range e.fields() {
		if f.id == "d-ng" || f.id == "d-ngv2" {
			d, ok := parseDigest(f.data)
			return d.Alg, ok
		}
	}
	return 0, false
}

var releaseNumber = regexp.MustCompile(`^(\d{1,3})\.(\d{1,3})`)

// before5_8 reports whether a kernel pads SHA-1 into every bank, as all before
// 5.8 did (ima_queue.c, ima_pcr_extend). Red Hat's 4.18 took later work over,
// and is not judged by its number.
func before5_8(release string) bool {
	m := releaseNumber.FindStringSubmatch(release)
	if m == nil || strings.Contains(release, ".el8") {
		return false
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major < 5 || major == 5 && minor < 8
}

// isDebian6_1 reports whether the release is one of Debian 12's own kernels,
// 6.1.0-N-FLAVOUR: the lab's capture ng-small-6.1 has padded SHA-384.
func isDebian6_1(release string) bool {
	n, ok := strings.CutPrefix(release, "6.1.0-")
	return ok && n != "" && n[0] >= '0' && n[0] <= '9'
}
