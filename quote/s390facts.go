package quote

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// s390Part is what the Ultravisor adds to a measurement if a flag of the request
// asks for it.
type s390Part struct {
	bit  int // of PAF
	name string
	size int
}

// s390Parts are in the additional data's own order (s390-tools,
// rust/pv/src/uvattest/additional.rs).
var s390Parts = []s390Part{
	{s390FlagImageKey, "image_phkh", 32},
	{s390FlagHostKey, "attestation_phkh", 32},
	{s390FlagSecrets, "secret_store_hash", 64},
	{s390FlagFirmware, "firmware_state", 320},
}

// s390Bit is a flag's name.
type s390Bit struct {
	bit  int
	name string
}

var (
	s390RequestFlags = []s390Bit{
		{s390FlagNonce, "NONCE"}, {s390FlagImageKey, "PHKH_IMG"}, {s390FlagHostKey, "PHKH_ATT"},
		{s390FlagSecrets, "SECRET_STORE_HASH"}, {s390FlagFirmware, "FIRMWARE_STATE"},
		{s390FlagBackup, "TMP_BACKUP_ALLOWED"}, {s390FlagGlobalKey, "GLOBAL_NHS_KEY_ALLOWED"},
	}
	// s390-tools, rust/pvimg/src/pv_utils/se_hdr/flags.rs
	s390HeaderFlags = []s390Bit{
		{34, "ALLOW_DUMPING"}, {35, "NO_COMPONENT_ENCRYPTION"}, {56, "PCKMO_DEA_TDEA"}, {57, "PCKMO_AES"},
		{58, "PCKMO_ECC"}, {59, "PCKMO_HMAC"}, {62, "BACKUP_TARGET_KEYS"},
	}
)

// flagFacts are a flag word and each of its named bits.
func flagFacts(name string, flags uint64, bits []s390Bit) []Fact {
	facts := []Fact{{name, fmt.Sprintf("%#016x", flags)}}
	for _, b := range bits {
		value := "0"
		if msb0(flags, b.bit) {
			value = "1"
		}
		facts = append(facts, Fact{name + "." + b.name, value})
	}
	return facts
}

// facts are fields of the response, the header and the request. Of an ARCB that
// stayed closed nothing is a fact: anybody can have written it.
func (r *s390Response) facts() []Fact {
	facts := []Fact{{"CUID", rtmr.Hex(r.CUID).String()}}
	if len(r.UserData) > 0 {
		facts = append(facts, Fact{"user_data", rtmr.Hex(r.UserData).String()})
	}
	if h := r.given.header; h != nil {
		facts = append(facts, Fact{"PLD", h.PLD.String()}, Fact{"ALD", h.ALD.String()}, Fact{"TLD", h.TLD.String()}, Fact{"tag", h.Tag.String()})
		facts = append(facts, flagFacts("PCF", h.Flags, s390HeaderFlags)...)
	}
	if !r.opened {
		return facts
	}
	facts = append(facts, flagFacts("PAF", r.request.Flags, s390RequestFlags)...)
	return append(facts, Fact{"NKS", fmt.Sprint(len(r.request.Slots))})
}

// additional splits the additional data by the request's flags, and holds the host
// keys' hashes in them against the documents that were given. Of an ARCB that stayed
// closed, the flags may be another's.
func (r *s390Response) additional(q *Quote) {
	if !r.opened {
		if len(r.Additional) > 0 {
			q.Facts = append(q.Facts, Fact{"additional_data", rtmr.Hex(r.Additional).String()})
		}
		return
	}
	left, hashes := rtmr.Hex(r.Additional), []Fact{}
	for _, part := range s390Parts {
		if !r.request.has(part.bit) {
			continue
		}
		if part.size > len(left) {
			q.bindAlso(Link{Binding, Failed, fmt.Sprintf("the additional data ends %d bytes into %s, expected %d, which the request's flags ask for", len(left), part.name, part.size)})
			return
		}
		f := Fact{part.name, left[:part.size].String()}
		left = left[part.size:]
		q.Facts = append(q.Facts, f)
		if part.size == 32 {
			hashes = append(hashes, f)
		}
		r.warnOf(q, f)
	}
	if len(left) > 0 {
		q.Facts = append(q.Facts, Fact{"unrecognized", left.String()})
		q.Warnings = append(q.Warnings, fmt.Sprintf("the additional data has %d bytes more than the flags that are known here ask for", len(left)))
	}
	if len(r.given.hosts) > 0 && len(hashes) > 0 {
		q.bindAlso(r.ofGivenHosts(hashes))
	}
}

// bindAlso adds to the link Binding.
func (q *Quote) bindAlso(l Link) {
	if old, ok := q.Link(Binding); ok {
		l = both(old, l)
	}
	q.setLink(l)
}

// ofGivenHosts tells whether the machine that answered is one of those whose host
// key documents were given.
func (r *s390Response) ofGivenHosts(hashes []Fact) Link {
	var names []string
	for _, f := range hashes {
		if !slices.ContainsFunc(r.given.hosts, func(h s390HostKey) bool { return h.hash.String() == f.Value }) {
			return Link{Binding, Failed, fmt.Sprintf("%s is %s, and no given host key document has that key", f.Name, f.Value)}
		}
		names = append(names, f.Name)
	}
	return Link{Binding, Verified, "of given host key documents: " + strings.Join(names, ", ")}
}

// warnOf tells of a host key's hash that the image or the request does not have: the
// machine used a key that was meant for it in neither.
func (r *s390Response) warnOf(q *Quote, f Fact) {
	var known []rtmr.Hex
	where := ""
	switch f.Name {
	case "image_phkh":
		if r.given.header == nil {
			return
		}
		known, where = r.given.header.HostKeyHashes, "the header"
	case "attestation_phkh":
		for _, slot := range r.request.Slots {
			known = append(known, slot.HostKeyHash)
		}
		where = "the ARCB"
	default:
		return
	}
	if !slices.ContainsFunc(known, func(h rtmr.Hex) bool { return h.String() == f.Value }) {
		q.Warnings = append(q.Warnings, fmt.Sprintf("%s is %s, for which %s has no key slot", f.Name, f.Value, where))
	}
}
