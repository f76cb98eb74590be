package testlogs

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
)

// OddLog is a boot log that is unusual or malformed, and what we make of it.
type OddLog struct {
	Name string
	Log  Log
	Want []string // "sha256 pcr0 value", computed by hand; every register with events
	Err  string   // part of our reader's error
}

// Banks of assembled logs.
var (
	SHA256Only = []uint16{SHA256}
	SHA1And256 = []uint16{SHA1, SHA256}
)

// OddLogs are run through our reader and through every oracle of boot logs.
func OddLogs() []OddLog {
	return slices.Concat(oddBeginnings(), oddEvents(), oddBanks(), oddFrames())
}

// crtmVersion is an event of PCR 0, and booted what that folds to alone.
var (
	crtmVersion = Event{Index: 0, Type: SCRTMVersion, Data: []byte("1.0")}
	booted      = []string{sha256Value("pcr0", at(0), crtmVersion)}
)

// separator is a register's EV_SEPARATOR.
func separator(index uint32) Event {
	return Event{Index: index, Type: Separator, Data: make([]byte, 4)}
}

// at is where PCR 0 begins with a locality, in SHA-256.
func at(locality byte) []byte { return append(make([]byte, 31), locality) }

func sha256Value(register string, start []byte, events ...Event) string {
	return "sha256 " + register + " " + foldData(crypto.SHA256, start, events)
}

func sha1Value(register string, start []byte, events ...Event) string {
	return "sha1 " + register + " " + foldData(crypto.SHA1, start, events)
}

// foldData folds the hashes of the events' data.
func foldData(h crypto.Hash, start []byte, events []Event) string {
	var sums [][]byte
	for _, e := range events {
		sums = append(sums, Hash(h, e.Data))
	}
	return fmt.Sprintf("%x", Fold(h, start, sums...))
}

// agile makes a crypto-agile log of the parts.
func agile(parts ...[]byte) Log { return Log{Format: "tcg2", Data: bytes.Join(parts, nil)} }

// sha256Log makes one with a SHA-256 bank.
func sha256Log(events ...Event) Log { return agile(TCG2(SHA256Only, events...)) }

// oddBeginnings are about where PCR 0 begins.
func oddBeginnings() []OddLog {
	inform := func(index uint32, data []byte) Event {
		return Event{Index: index, Type: NoAction, Data: data, Digests: []Digest{{SHA256, make([]byte, 32)}}}
	}
	three := inform(0, StartupLocality(3))
	hcrtm := Event{Index: 0, Type: HCRTMEvent, Data: []byte("HCRTM")}
	sha1Three := Event{Index: 0, Type: NoAction, Data: StartupLocality(3)}
	sha1At3 := append(make([]byte, 19), 3)
	return []OddLog{
		{"startup_locality_3", sha256Log(three, crtmVersion), []string{sha256Value("pcr0", at(3), crtmVersion)}, ""},
		{"startup_locality_after_an_extend", sha256Log(crtmVersion, three, separator(0)),
			[]string{sha256Value("pcr0", at(0), crtmVersion, separator(0))}, ""},
		{"startup_locality_of_18_bytes", sha256Log(inform(0, append(StartupLocality(3), 0)), crtmVersion), booted, ""},
		{"startup_locality_in_pcr1", sha256Log(inform(1, StartupLocality(3)), crtmVersion), booted, ""},
		{"startup_locality_in_a_sha1_log", Log{Format: "tcg12", Data: TCG12(separator(1), sha1Three, crtmVersion)},
			[]string{sha1Value("pcr0", sha1At3, crtmVersion), sha1Value("pcr1", make([]byte, 20), separator(1))}, ""},
		{"hcrtm", sha256Log(hcrtm, crtmVersion), []string{sha256Value("pcr0", at(4), hcrtm, crtmVersion)}, ""},
		{"hcrtm_after_startup_locality_3", sha256Log(three, hcrtm, crtmVersion), []string{sha256Value("pcr0", at(4), hcrtm, crtmVersion)}, ""},
	}
}

// oddEvents are about events and their registers.
func oddEvents() []OddLog {
	sp800155 := Event{Index: 0xFFFFFFFF, Type: NoAction, Data: []byte("SP800-155 Event\x00")}
	withDigests := Event{Index: 0, Type: NoAction, Data: []byte("any")} // whose digests are of its data
	two := []string{sha256Value("pcr0", at(0), crtmVersion, separator(0))}
	cc := Log{Format: "ccel", Data: TCG2([]uint16{SHA384}, separator(1), sp800155, separator(1))}
	ccTwo := []string{"sha384 rtmr0 " + foldData(crypto.SHA384, make([]byte, 48), []Event{separator(1), separator(1)})}
	return []OddLog{
		{"no_action_of_no_register_in_a_cc_log", cc, ccTwo, ""},
		{"no_action_with_digests_in_the_middle", sha256Log(crtmVersion, withDigests, separator(0)), two, ""},
		{"no_action_of_no_register", sha256Log(crtmVersion, sp800155, separator(0)), two, ""},
		{"register_24", sha256Log(crtmVersion, separator(24)), booted, "register index: 24, expected 0 to 23"},
		{"drtm_register", sha256Log(separator(17)), []string{sha256Value("pcr17", at(0), separator(17))}, ""},
	}
}

// oddBanks are about algorithms and digests.
func oddBanks() []OddLog {
	digest := Digest{SHA256, Hash(crypto.SHA256, separator(4).Data)}
	event := func(digests ...Digest) Event {
		return Event{Index: 4, Type: Separator, Data: separator(4).Data, Digests: digests}
	}
	foreign := func(alg uint16) Event { return event(digest, Digest{alg, bytes.Repeat([]byte{0xAA}, 32)}) }
	once := []string{sha256Value("pcr4", at(0), separator(4))}
	sha1 := Digest{SHA1, Hash(crypto.SHA1, separator(4).Data)}
	return []OddLog{
		{"sm3_bank", agile(TCG2([]uint16{SHA256, SM3}, foreign(SM3))), once, ""},
		{"bank_of_an_unknown_algorithm", agile(TCG2([]uint16{SHA256, 0x0099}, foreign(0x0099))), once, ""},
		{"bank_that_the_header_does_not_list", sha256Log(crtmVersion, foreign(0x0099)), booted, "digest algorithm: alg_0x0099"},
		{"event_without_a_digest_in_one_bank", agile(TCG2(SHA1And256, separator(4), event(sha1))),
			[]string{sha1Value("pcr4", make([]byte, 20), separator(4), separator(4)), once[0]}, ""},
		{"two_digests_in_one_bank", sha256Log(event(digest, digest)), nil, "digests: sha256 twice in one event"},
	}
}

// oddFrames are about headers, lengths and ends.
func oddFrames() []OddLog {
	log, record := TCG2(SHA256Only, crtmVersion), Records(SHA256Only, crtmVersion)
	two := []string{sha256Value("pcr0", at(0), crtmVersion, separator(0))}
	rtmr := Event{Index: 1, Type: Separator, Data: make([]byte, 4)}
	return []OddLog{
		{"headerless", agile(Records(SHA256Only, crtmVersion, separator(0))), two, ""},
		{"vendor_information", agile(SpecID(SHA256Only, 7), record), booted, ""},
		{"header_without_vendor_size", agile(withoutVendorSize(SpecID(SHA256Only, 0)), record), booted, ""},
		{"header_of_version_2_1", agile(withMinorVersion(SpecID(SHA256Only, 0), 1), record), booted, ""},
		{"padded_with_ff", agile(log, bytes.Repeat([]byte{0xFF}, 100)), booted, ""},
		{"padded_with_zeros", agile(log, make([]byte, 100)), booted, ""},
		{"trailing_bytes", agile(log, []byte{1, 2, 3}), booted, "event header: the log ends 3 bytes into a record"},
		{"truncated", agile(log, record[:len(record)-3]), booted, "the log ends"},
		{"header_alone", sha256Log(), nil, ""},
		{"event_size_of_4_gib", agile(log, claiming(1, 0xFFFFFFFF)), booted, "event size: 4294967295 bytes"},
		{"4_gi_digests", agile(log, claiming(0xFFFFFFFF, 3)), booted, "digest count: 4294967295"},
		{"cc_log_padded", Log{Format: "ccel", Data: append(TCG2([]uint16{SHA384}, rtmr), bytes.Repeat([]byte{0xFF}, 4000)...)},
			[]string{"sha384 rtmr0 " + foldData(crypto.SHA384, make([]byte, 48), []Event{rtmr})}, ""},
	}
}

// claiming is a record whose header claims a count of digests and a size of
// data that it does not have.
func claiming(digests, size uint32) []byte {
	b := Records(SHA256Only, crtmVersion)
	le.PutUint32(b[8:], digests)
	le.PutUint32(b[12+2+32:], size)
	return b
}

// withoutVendorSize drops a header's last byte, and counts its data without it.
func withoutVendorSize(b []byte) []byte {
	b = b[:len(b)-1]
	le.PutUint32(b[28:], uint32(len(b)-32))
	return b
}

// withMinorVersion changes specVersionMinor, behind signature and class.
func withMinorVersion(b []byte, minor byte) []byte {
	b[32+16+4] = minor
	return b
}
