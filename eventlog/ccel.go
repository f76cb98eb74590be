package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// The CCEL ACPI table (ACPI 6.5 §5.2.34) is 56 bytes: the 36-byte header,
// u8 CC type, u8 subtype, u16 reserved, u64 minimum length, u64 start address.
// Linux shows it apart from its log, which is in .../acpi/tables/data/CCEL.
const (
	acpiSignature = "CCEL"
	acpiTableSize = 56
)

// endOfLog is what an index and a type read as in the data area's unused
// rest, which firmware fills with 0xFF.
const endOfLog = 0xFFFFFFFF

var errTableOnly = errors.New("the ACPI table alone, without the log: expected the file data/CCEL beside it")

// skipACPITable moves past a CCEL table in front of the log.
func (r *Reader) skipACPITable() error {
	b, err := r.in.Peek(acpiTableSize)
	if err != nil || string(b[:4]) != acpiSignature {
		return nil
	}
	if n := binary.LittleEndian.Uint32(b[4:]); n != acpiTableSize {
		return r.syntaxError(4, "ACPI table length", fmt.Errorf("%d, expected %d", n, acpiTableSize))
	}
	r.realm = b[36] == ccTypeARM
	r.in.Skip(acpiTableSize)
	if _, err := r.in.Peek(1); err != nil {
		return r.syntaxError(0, "CC event log", errTableOnly)
	}
	return nil
}

// ccTypeARM is the CC type of Arm CCA in the CCEL table; 1 is SEV, 2 TDX and 3
// RISC-V's AP-TEE (EDK2's IndustryStandard/Acpi65.h).
const ccTypeARM = 4

// isRealm tells whose log this is by its banks where no ACPI table does: TDX
// has SHA-384 alone, so SHA-256 or SHA-512 is a realm's. SM3 is that of Hygon's
// CSV, whose registers are given the names of TDX's.
func (s *SpecID) isRealm() bool {
	return len(s.Banks) == 1 && (s.Banks[0].Alg == rtmr.SHA256 || s.Banks[0].Alg == rtmr.SHA512)
}

// ccRegister returns the register of a CC-MR index.
func (r *Reader) ccRegister(i CCMRIndex) (rtmr.Register, bool) {
	reg, ok := i.Register()
	if r.realm {
		reg = reg.Realm()
	}
	return reg, ok
}

// finishPadding reads the rest of a padded log, which must be all of one byte,
// and warns where it is not: what stands behind the end of a log is read by
// nobody and measured by nothing.
func (r *Reader) finishPadding(fill byte) error {
	start := r.in.Offset()
	for {
		b, err := r.in.Peek(4096)
		if bytes.Count(b, []byte{fill}) != len(b) {
			i := slices.IndexFunc(b, func(c byte) bool { return c != fill })
			r.warn("offset %d: data behind the end of the log at offset %d, which is not part of it", r.in.Offset()+int64(i), start)
			return nil
		}
		r.in.Skip(len(b))
		if err != nil {
			return sourceError(err)
		}
	}
}
