// Package cel reads and writes the TCG Canonical Event Log (CEL 1.1) in its
// three encodings, TLV, JSON and CBOR, and reads systemd's JSON-SEQ log.
//
//	r := cel.NewReader(f, cel.TLV)
//	for m, err := range r.Measurements() { .. }
//
//	w := cel.NewWriter(f, cel.JSON)
//	err := w.Write(m)
//	err = w.Close()
//
// A Measurement's Entry is an [*Entry]. [Entry.Inner] is the TCG event or the
// IMA entry in it, so that what is known of those logs holds here too.
//
// # Records
//
// A record is a record number, the index of what was extended, the digests,
// and one content. CEL has one table of labels: a member has a name in JSON
// and a number in CBOR, which is the type byte in TLV where TLV has the member.
//
//	label         JSON           CBOR  TLV  value
//	recnum        recnum            0    0  u64
//	index         pcr               1    1  u32
//	              nv_index          2    2  u32
//	              ccmr            108  108  CC-MR index, 1-based (eventlog.CCMRIndex)
//	digests       digests           3    3  list of digests
//	content type  content_type      9    -  number or name below
//	content       content          10    -  the content, as its type says
//
// A record has one index. 108 is no TCG number but the one that go-eventlog and
// Google's Container-Optimized OS use in TLV; nobody has a name for it in JSON,
// and "ccmr" is ours. Whether a TD's or a realm's register is meant, the digests'
// algorithms tell where they can; see Reader.Realm.
//
// TLV is u8 type, be32 length, value; numbers are big-endian in 1 to 8 bytes;
// the four fields stand in the order recnum, index, digests, content, and the
// content's type byte is its content type. A digest is a TLV of type algorithm,
// so only algorithms below 0x100 fit. In JSON and CBOR a digest is
//
//	hashAlg       hashAlg           0    -  number, or a name in JSON ("sha256")
//	digest        digest            1    -  bytes
//
// Bytes are hexadecimal in JSON: every implementation found does so, and none
// base64. A log is a JSON array, a CBOR array, or TLVs one after another. The
// readers also take a sequence of JSON objects (JSON Lines, JSON-SEQ, a single
// object), and a CBOR sequence; of unknown members they take no notice.
//
// # Contents
//
//	number  name          members (TLV type and CBOR key), or form
//	4       cel           management, below
//	5       pcclient_std  event_type 0 (a number, or EV_SEPARATOR in JSON), event_data 1
//	7       ima_template  template_name 0, template_data 1
//	8       ima_tlv       bytes
//	9       systemd       bytes: the string that systemd measured
//	11      systemd       libcel's: eventType 0, timestamp 1, bootId 2, string 3
//	80      -             COS: one TLV, u8 event type and text
//	84      tallystick    type 0 (text), data 1: what no other content can say
//	other   -             bytes, carried along
//
// Names are read in any case and numbers are read in their place. In JSON,
// systemd's content may also be the object that systemd writes: string, bootId,
// timestamp, eventType, nvIndexName. TLV and CBOR have the string only. Entries
// read as 11 are written as 11.
//
// Management content is, in TLV, one or more TLVs whose type is the
// management type; in JSON and CBOR {type 0, data 1} or a list of those:
//
//	1   cel_version    {major 0, minor 1}
//	2   firmware_end   nothing
//	80  cel_timestamp  u64
//	81  state_trans    0 suspend, 1 hibernate, 2 kexec
//
// # What extends
//
// In CEL 1.1 an event can be unmeasured: cel_version, firmware_end and
// pcclient_std's EV_NO_ACTION are, whatever digests they carry, and become
// Measurement.NoAction. A timestamp or a state transition extends if it has
// digests. An NV index is no register of this project's: such a record has the
// zero Register, NoAction, and keeps its Index.
//
// The specification's text was not at hand, so no section of it is cited: what
// is said of it here is what the implementations agree on (libcel, go-eventlog's
// and go-tpm-tools' cel, tpm2-tss's ifapi_eventlog.c, Safford's CEL tools).
//
// # Record numbers
//
// CEL counts recnum from 0 for each index; libcel, tpm2-tss and
// Safford's tools do so, and so does [Writer]. go-eventlog counts through the
// log. [Reader] takes both and warns of what is neither. systemd writes none.
//
// # systemd
//
// /run/log/systemd/tpm2-measure.log is JSON-SEQ (RFC 7464): 0x1E, an object in
// CEL-JSON without recnum, a line end. Its writer holds LOCK_EX, so take
// LOCK_SH around reading, and a sticky bit on the file says that its last
// record may be missing (src/shared/tpm2-util.c). cc-measure.log, which systemd
// writes for a TD, has "rtmr" (0-based) in place of pcr, and the PCR that it
// stands for as mapped_pcr (tdx-rtmr.c).
package cel
