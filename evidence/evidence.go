// Package evidence is the bundle: one file with all that a verifier needs of a
// guest but the nonce that it sent and the roots that it trusts.
//
// The guest's half fills a [Bundle] at one moment and calls [Bundle.Marshal]; the
// verifier's half calls [Read], or gives the file to quote.Open, which checks who
// vouches for it:
//
//	data, err := bundle.Marshal()
//	bundle, err := evidence.Read(data)
//
// It is a CBOR collection of a CMW (draft-ietf-rats-msg-wrap), which
// docs/evidence.md specifies to the byte.
//
// Nothing in a bundle is to be believed because it stands there: whoever sends it
// may have written every byte. What the quote signs, the quote's signer vouches
// for; the logs are believed as far as they fold to the values that it signs; the
// [Statement] is the sender's own word and stays that.
package evidence

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tallystick/rtmr"
)

// Bundle is the evidence of one moment. What is nil or empty is not in the file.
//
// A bundle has one quote or none: TDQuote; or Attest and Signature, with Public or
// HCL. What is beside that quote goes with it and with no other.
type Bundle struct {
	// TDQuote is a TD quote, or a TDREPORT where no quote can be had.
	TDQuote []byte

	// Attest, Signature and Public are a TPM's quote, or a software TPM's: the
	// TPMS_ATTEST, the TPMT_SIGNATURE, and the attestation key's TPMT_PUBLIC.
	Attest, Signature, Public []byte
	// EKCertificate is the X.509 certificate of the TPM's endorsement key, in DER.
	// That the attestation key is beside it in the TPM, it does not show: a record
	// of a credential activation does, which is the verifier's to make and to keep.
	EKCertificate []byte
	// HCL is the report of Azure's paravisor, whose HCLAkPub is the attestation key.
	HCL []byte
	// Report is the hardware's, which stands for a software TPM's key and quote: an
	// SEV-SNP report with the host's certificate table behind it, if any (configfs'
	// outblob, then auxblob), a TD quote, or a TDREPORT.
	Report []byte

	// Values are the registers' values: those that a TPM's quote signs a digest
	// over; or alone, where there is no quote and nobody vouches for them.
	Values rtmr.Values

	// BootLog is the firmware's, TCG or CCEL, as the kernel gives it.
	BootLog []byte
	// IMAList is the kernel's binary IMA list from its first entry to the last one
	// that was read. One that was read in parts, as the kernel trims it, is the
	// parts joined.
	IMAList []byte
	// Journal is what the guest's helper extended, a canonical event log in TLV, up
	// to the moment of the quote.
	Journal []byte
	// Damaged are journals that were put aside because they could not be read, or
	// contradicted the registers; for people.
	Damaged [][]byte

	Statement Statement
}

// Statement is what the sender says of itself and of the bundle. Nothing signs it.
type Statement struct {
	Helper string           `json:"helper"`           // name and version of what made the bundle
	Device rtmr.Description `json:"device"`           // whose registers these are
	Logs   []LogRole        `json:"logs"`             // every log of the bundle, in order of layers
	Nonce  rtmr.Hex         `json:"nonce,omitempty"`  // for which the quote was asked for
	Time   time.Time        `json:"time"`             // of the quote, by the guest's clock
	Kernel string           `json:"kernel,omitempty"` // its release, as uname -r prints it
	// Facts are what else a reader may want to know: whether tap and guard run.
	Facts []Fact `json:"facts,omitempty"`
	// Warnings are what did not go as it should, a sentence each: what was found
	// after a crash, a boot log that does not replay.
	Warnings []string `json:"warnings,omitempty"`
}

// Fact is one statement by name.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// LogRole says how a log of the bundle is to be read. A lie about it gains nothing:
// the logs that are folded have to fold to what the quote signs.
type LogRole struct {
	Item string `json:"item"` // ItemBootLog, ItemIMAList or ItemJournal
	Role Role   `json:"role"`
}

// Role is how a log is read.
type Role string

// The roles.
const (
	// Folded is a log whose entries were extended: by firmware, kernel or helper.
	Folded Role = "folded"
	// Checked is a log whose entries the helper extended in their author's place:
	// the journal has a copy of each, in the same order, against which it is held.
	Checked Role = "checked"
)

// Log is one log of a bundle.
type Log struct {
	LogRole
	Data []byte
}

// Logs returns the logs in the statement's order.
func (b *Bundle) Logs() (logs []Log) {
	for _, l := range b.Statement.Logs {
		logs = append(logs, Log{l, b.log(l.Item)})
	}
	return logs
}

func (b *Bundle) log(item string) []byte {
	switch item {
	case ItemBootLog:
		return b.BootLog
	case ItemIMAList:
		return b.IMAList
	case ItemJournal:
		return b.Journal
	}
	return nil
}

// isLog reports whether an item is a log, which has a role.
func isLog(item string) bool {
	return slices.Contains([]string{ItemBootLog, ItemIMAList, ItemJournal}, item)
}

// check reports what does not go together.
func (b *Bundle) check(parts ...Part) error {
	if err := checkParts(parts); err != nil {
		return err
	}
	tpm := len(b.Attest) > 0
	switch {
	case tpm && len(b.TDQuote) > 0:
		return fmt.Errorf("both %s and %s, expected one quote", ItemTDQuote, ItemAttest)
	case tpm != (len(b.Signature) > 0):
		return fmt.Errorf("%s and %s go together, and one is missing", ItemAttest, ItemSignature)
	case tpm && len(b.Public) == 0 && len(b.HCL) == 0:
		return fmt.Errorf("neither %s nor %s, expected the key of %s", ItemPublic, ItemHCL, ItemAttest)
	case len(b.Report) > 0 && len(b.HCL) > 0:
		return fmt.Errorf("both %s and %s, expected one that stands for the key", ItemReport, ItemHCL)
	case len(b.TDQuote) > 0 && len(b.Values) > 0:
		return fmt.Errorf("%s beside %s, which states its own", ItemValues, ItemTDQuote)
	case !tpm && len(b.TDQuote) == 0 && len(b.Values) == 0:
		return fmt.Errorf("neither a quote (%s, %s) nor %s", ItemTDQuote, ItemAttest, ItemValues)
	}
	if !tpm {
		for _, with := range []struct {
			item string
			data []byte
		}{{ItemPublic, b.Public}, {ItemEKCertificate, b.EKCertificate}, {ItemHCL, b.HCL}, {ItemReport, b.Report}} {
			if len(with.data) > 0 {
				return fmt.Errorf("%s without %s, whose it would be", with.item, ItemAttest)
			}
		}
	}
	if err := b.Values.Validate(); err != nil {
		return fmt.Errorf("%s: %w", ItemValues, err)
	}
	if err := b.checkLogs(parts); err != nil {
		return fmt.Errorf("%s: logs: %w", ItemStatement, err)
	}
	return nil
}

// checkLogs reports a log without a role, or a role without a log.
func (b *Bundle) checkLogs(parts []Part) error {
	roles := b.Statement.Logs
	has := func(item string) bool {
		return len(b.log(item)) > 0 || slices.ContainsFunc(parts, func(p Part) bool { return p.Key == item })
	}
	for i, l := range roles {
		switch {
		case !isLog(l.Item):
			return fmt.Errorf("%q, expected %s, %s or %s", rtmr.Escape(l.Item), ItemBootLog, ItemIMAList, ItemJournal)
		case l.Role != Folded && l.Role != Checked:
			return fmt.Errorf("%s: role %q, expected %s or %s", l.Item, rtmr.Escape(string(l.Role)), Folded, Checked)
		case !has(l.Item):
			return fmt.Errorf("%s is not in the bundle", l.Item)
		case slices.ContainsFunc(roles[:i], func(o LogRole) bool { return o.Item == l.Item }):
			return fmt.Errorf("%s comes twice", l.Item)
		case l.Role == Checked && l.Item == ItemJournal:
			return errors.New("the journal is what other logs are checked against")
		case l.Role == Checked && !has(ItemJournal):
			return fmt.Errorf("%s is to be checked, and there is no journal to check it against", l.Item)
		}
	}
	for _, item := range []string{ItemBootLog, ItemIMAList, ItemJournal} {
		if has(item) && !slices.ContainsFunc(roles, func(l LogRole) bool { return l.Item == item }) {
			return fmt.Errorf("%s has no role", item)
		}
	}
	return nil
}
