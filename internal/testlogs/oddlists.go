package testlogs

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// OddList is an IMA list and what we make of it.
type OddList struct {
	Name    string
	List    []byte
	Entries []Entry // those that are read
	Err     string  // part of our reader's error
}

// OddLists are run through our reader and through evmctl.
func OddLists() []OddList { return slices.Concat(oddTemplates(), oddLayouts()) }

// ng is an entry of the fields d-ng, n-ng and others; ngv2 one of d-ngv2.
func ng(template string, fields ...[]byte) Entry {
	return Entry{PCR: 10, Template: template, Data: Fields(le, append(NG("/bin/sh", "x"), fields...)...)}
}

func ngv2(template string, fields ...[]byte) Entry {
	first := NG("/bin/sh", "x")
	first[0] = append([]byte("verity:"), first[0]...)
	return Entry{PCR: 10, Template: template, Data: Fields(le, append(first, fields...)...)}
}

// IMAEntry is an entry of the template "ima".
func IMAEntry(name string) Entry {
	data := le.AppendUint32(Hash(crypto.SHA1, []byte("x")), uint32(len(name)))
	return Entry{PCR: 10, Template: "ima", Data: append(data, name...)}
}

func in(pcr uint32, e Entry) Entry { e.PCR = pcr; return e }

func sha1List(name string, entries ...Entry) OddList {
	return OddList{name, IMA(le, crypto.SHA1, entries...), entries, ""}
}

// oddTemplates are about the entries.
func oddTemplates() []OddList {
	sig := append([]byte{3, 2, 4, 1, 2, 3, 4, 0, 64}, make([]byte, 64)...)
	noDigest := append([]byte("sha256:\x00"), make([]byte, 32)...)
	violation := Entry{PCR: 10, Template: "ima-ng", Sum: make([]byte, 20), Data: Fields(le, noDigest, []byte("/etc/passwd\x00"))}
	forged := ng("ima-ng")
	forged.Sum = Hash(crypto.SHA1, []byte("another"))
	evmSig := ng("evm-sig", sig, []byte("security.ima\x00"), le.AppendUint32(nil, 4), []byte("abcd"),
		le.AppendUint32(nil, 0), le.AppendUint32(nil, 0), le.AppendUint16(nil, 0o755))
	cgroup := append([][]byte{[]byte("sh:bash\x00"), []byte("/docker\x00")}, NG("/bin/sh", "x")...)
	return []OddList{
		sha1List("ima", IMAEntry("/bin/sh"), IMAEntry("/bin/ls")),
		sha1List("ima_ng", ng("ima-ng"), ng("ima-ng")),
		sha1List("ima_sig", ng("ima-sig", sig), ng("ima-sig", nil)),
		sha1List("ima_buf", ng("ima-buf", []byte("kexec-cmdline"))),
		sha1List("ima_modsig", ng("ima-modsig", nil, noDigest, []byte("pkcs7"))),
		sha1List("ima_ngv2", ngv2("ima-ngv2")),
		sha1List("ima_sigv2", ngv2("ima-sigv2", sig)),
		sha1List("evm_sig", evmSig),
		sha1List("out_of_tree_template", Entry{PCR: 10, Template: "ima-cgpath", Data: Fields(le, cgroup...)}),
		sha1List("custom_template", ng("d-ng|n-ng|sig", sig)),
		sha1List("three_registers", ng("ima-ng"), in(11, ng("ima-sig", sig)), in(12, ngv2("ima-ngv2"))),
		sha1List("ima_beside_ima_ng", IMAEntry("/bin/sh"), ng("ima-ng")),
		sha1List("name_with_a_newline", Entry{PCR: 10, Template: "ima-ng", Data: Fields(le, NG("/a\n10 b", "x")...)}),
		sha1List("violation", ng("ima-ng"), violation, ng("ima-ng")),
		sha1List("forged", forged),
	}
}

// oddLayouts are about byte orders, banks, lengths and ends.
func oddLayouts() []OddList {
	entry, be := ng("ima-ng"), binary.BigEndian
	list, one := IMA(le, crypto.SHA1, entry), []Entry{entry}
	big := []Entry{{PCR: 10, Template: "ima-ng", Data: Fields(be, NG("/bin/sh", "x")...)}}
	huge := bytes.Clone(list)
	le.PutUint32(huge[4+20+4+len("ima-ng"):], 0xFFFFFFF0)
	plain, long := IMAEntry("/bin/sh"), IMAEntry(strings.Repeat("n", 300))
	return []OddList{
		{"big_endian", IMA(be, crypto.SHA1, big...), big, ""},
		{"sha256_list", IMA(le, crypto.SHA256, entry, entry), []Entry{entry, entry}, ""},
		{"truncated", slices.Concat(list, list[:len(list)-3]), one, "the list ends"},
		{"trailing_bytes", append(bytes.Clone(list), 1, 2, 3), one, "the list ends 3 bytes into it"},
		{"pcr_24", IMA(le, crypto.SHA1, entry, in(24, entry)), one, ""},
		{"pcr_64", IMA(le, crypto.SHA1, entry, in(64, entry)), one, "PCR index: 64, expected 0 to 63"},
		{"ima_name_of_300_bytes", IMA(le, crypto.SHA1, plain, long), []Entry{plain}, "event name length"},
		{"data_length_of_4_gib", slices.Concat(list, huge), one, "template data length: 4294967280"},
	}
}

// Registers folds the entries by hand in a bank: a violation as 0xFF, the
// recorded hash in its own algorithm, and the data's in the others. It returns
// "pcr10 value", in order.
func (o OddList) Registers(h crypto.Hash) (registers []string) {
	sums := map[uint32][][]byte{}
	for _, e := range o.Entries {
		sum := e.Hash(h)
		switch {
		case e.Sum != nil && len(bytes.Trim(e.Sum, "\x00")) == 0:
			sum = bytes.Repeat([]byte{0xFF}, h.Size())
		case len(e.Sum) == h.Size():
			sum = e.Sum
		}
		sums[e.PCR] = append(sums[e.PCR], sum)
	}
	for pcr, list := range sums {
		registers = append(registers, fmt.Sprintf("pcr%d %x", pcr, Fold(h, Zeros(h), list...)))
	}
	slices.Sort(registers)
	return registers
}
