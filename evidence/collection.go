package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/cmw"

	"tallystick/rtmr"
)

// The collection's keys. They have eight characters or more, so that the
// deterministic order of a CBOR map (RFC 8949 §4.2.1: shorter keys first) puts the
// collection's type before all of them, where Is finds it.
const (
	ItemTDQuote       = "td-quote"
	ItemAttest        = "tpm-attest"
	ItemSignature     = "tpm-signature"
	ItemPublic        = "tpm-public"
	ItemEKCertificate = "ek-certificate"
	ItemHCL           = "hcl-report"
	ItemReport        = "hardware-report"
	ItemValues        = "register-values"
	ItemBootLog       = "boot-log"
	ItemIMAList       = "ima-list"
	ItemJournal       = "cel-journal"
	ItemStatement     = "statement"
	damaged           = "damaged-journal-" // and a digit, from 1
)

// MaxDamaged is how many journals that were put aside a bundle holds at the most.
const MaxDamaged = 9

// The collection's type is an object identifier below the arc 2.25, of UUIDs, where
// nobody has to register (ITU-T X.667): the bundle's, then its version.
const (
	arc     = "2.25.322105322951215556301519893544463757044."
	version = "1"
)

// mediaTypes are the items'. Two of them are registered; the others are in the
// vendor tree, for those who registered something have done it for their own
// wrapping of these bytes and not for the bytes.
var mediaTypes = map[string]string{
	ItemTDQuote:       "application/vnd.tallystick.td-quote",
	ItemAttest:        "application/vnd.tallystick.tpms-attest",
	ItemSignature:     "application/vnd.tallystick.tpmt-signature",
	ItemPublic:        "application/vnd.tallystick.tpmt-public",
	ItemEKCertificate: "application/pkix-cert",
	ItemHCL:           "application/vnd.tallystick.hcl-report",
	ItemReport:        "application/vnd.tallystick.hardware-report",
	ItemValues:        "application/vnd.tallystick.values+json",
	ItemBootLog:       "application/vnd.tallystick.boot-log",
	ItemIMAList:       "application/vnd.tallystick.ima-list",
	ItemJournal:       "application/vnd.tallystick.cel-tlv",
	ItemStatement:     "application/vnd.tallystick.statement+json",
}

// mediaType returns an item's; ok is false for what is no item of a bundle.
func mediaType(key string) (typ string, ok bool) {
	if n, isDamaged := strings.CutPrefix(key, damaged); isDamaged {
		return mediaTypes[ItemJournal], len(n) == 1 && n >= "1" && n <= "9"
	}
	typ, ok = mediaTypes[key]
	return typ, ok
}

// Item is one item of the collection, as it stands in the file.
type Item struct {
	Key   string
	Type  string // media type
	Value []byte
}

// Items returns what is in the bundle, in the order of the file.
func (b *Bundle) Items() ([]Item, error) {
	parts := map[string][]byte{
		ItemTDQuote: b.TDQuote, ItemAttest: b.Attest, ItemSignature: b.Signature, ItemPublic: b.Public,
		ItemEKCertificate: b.EKCertificate, ItemHCL: b.HCL, ItemReport: b.Report,
		ItemBootLog: b.BootLog, ItemIMAList: b.IMAList, ItemJournal: b.Journal,
	}
	if len(b.Damaged) > MaxDamaged {
		return nil, fmt.Errorf("%d damaged journals, expected %d at most", len(b.Damaged), MaxDamaged)
	}
	for i, journal := range b.Damaged {
		parts[fmt.Sprintf("%s%d", damaged, i+1)] = journal
	}
	var err error
	if len(b.Values) > 0 {
		if parts[ItemValues], err = json.Marshal(b.Values); err != nil {
			return nil, fmt.Errorf("%s: %w", ItemValues, err)
		}
	}
	if parts[ItemStatement], err = json.Marshal(b.Statement); err != nil {
		return nil, fmt.Errorf("%s: %w", ItemStatement, err)
	}
	var items []Item
	for _, key := range slices.SortedFunc(maps.Keys(parts), compareKeys) {
		if len(parts[key]) > 0 {
			typ, _ := mediaType(key)
			items = append(items, Item{key, typ, parts[key]})
		}
	}
	return items, nil
}

// compareKeys orders keys as the CBOR map does: by length, then by bytes.
func compareKeys(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// Marshal writes the bundle. It is an error if its parts do not go together.
func (b *Bundle) Marshal() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	items, err := b.Items()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	collection, err := cmw.NewCollection(arc + version)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		node, err := cmw.NewMonad(item.Type, item.Value, cmw.Evidence)
		if err == nil {
			err = collection.AddCollectionItem(item.Key, node)
		}
		if err != nil {
			return nil, fmt.Errorf("bundle: %s: %w", item.Key, err)
		}
	}
	return collection.MarshalCBOR()
}

// ErrVersion says that a bundle is of a version that is not read here.
var ErrVersion = errors.New("unknown version")

// Is tells a bundle, of whatever version, by its first 57 bytes: the head of a map
// of up to 23 pairs, the first key, the head of a text of up to 255 bytes, and the
// bundle's arc.
func Is(data []byte) bool {
	const key = "\x68__cmwc_t\x78"
	if len(data) < len(key)+2 || data[0] < 0xa1 || data[0] > 0xb7 {
		return false
	}
	return bytes.HasPrefix(data[1:], []byte(key)) && bytes.HasPrefix(data[len(key)+2:], []byte(arc))
}

// strict reads a collection's map. Of the same key twice two readers might take
// one each; nothing else that it refuses is what Marshal writes.
var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, MaxNestedLevels: 4, MaxMapPairs: 32, MaxArrayElements: 16,
	}.DecMode()
	if err != nil {
		panic(err) // a slip in the source
	}
	return mode
}()

// Read reads a bundle. The error names the item and what was expected; it wraps
// ErrVersion where a later version wrote the bundle. Read allocates a few times
// what the bundle has bytes, and keeps nothing of data.
func Read(data []byte) (*Bundle, error) {
	if !Is(data) {
		return nil, fmt.Errorf("offset 0: no bundle: expected a CMW collection of the type %s%s", arc, version)
	}
	var items map[string]cbor.RawMessage
	if err := strict.Unmarshal(data, &items); err != nil {
		return nil, errors.New(rtmr.Escape(err.Error()))
	}
	var typ string
	if err := strict.Unmarshal(items[cmw.CmwCType], &typ); err != nil {
		return nil, fmt.Errorf("%s: %s", cmw.CmwCType, rtmr.Escape(err.Error()))
	}
	if v := strings.TrimPrefix(typ, arc); v != version {
		return nil, fmt.Errorf("%w %s of the bundle, expected %s", ErrVersion, rtmr.Escape(v), version)
	}
	delete(items, cmw.CmwCType)
	b := &Bundle{}
	for _, key := range slices.SortedFunc(maps.Keys(items), compareKeys) { // the same error every time
		value, err := itemValue(key, items[key])
		if err == nil {
			err = b.take(key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rtmr.Escape(key), err)
		}
	}
	if _, ok := items[ItemStatement]; !ok {
		return nil, fmt.Errorf("no item %s", ItemStatement)
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// itemValue unwraps one item.
func itemValue(key string, raw []byte) ([]byte, error) {
	want, ok := mediaType(key)
	if !ok {
		return nil, errors.New("no item of a bundle")
	}
	var wrapped cmw.CMW
	if err := wrapped.UnmarshalCBOR(raw); err != nil {
		return nil, errors.New(rtmr.Escape(err.Error()))
	}
	typ, err := wrapped.GetMonadType()
	if err != nil {
		return nil, fmt.Errorf("a collection, expected a record of the media type %s", want)
	}
	if typ != want {
		return nil, fmt.Errorf("media type %q, expected %s", rtmr.Escape(typ), want)
	}
	if ind, _ := wrapped.GetMonadIndicator(); ind != cmw.Evidence {
		return nil, fmt.Errorf("indicator %d, expected %d (evidence)", ind, cmw.Evidence)
	}
	value, _ := wrapped.GetMonadValue()
	if len(value) == 0 {
		return nil, errors.New("it is empty")
	}
	return value, nil
}

// take puts an item's value where it belongs. Damaged journals come by rising
// number.
func (b *Bundle) take(key string, value []byte) error {
	switch key {
	case ItemStatement:
		return readJSON(value, maxStatement, &b.Statement)
	case ItemValues:
		return readJSON(value, maxValues, &b.Values)
	case ItemTDQuote:
		b.TDQuote = value
	case ItemAttest:
		b.Attest = value
	case ItemSignature:
		b.Signature = value
	case ItemPublic:
		b.Public = value
	case ItemEKCertificate:
		b.EKCertificate = value
	case ItemHCL:
		b.HCL = value
	case ItemReport:
		b.Report = value
	case ItemBootLog:
		b.BootLog = value
	case ItemIMAList:
		b.IMAList = value
	case ItemJournal:
		b.Journal = value
	default: // mediaType knows no other
		if want := fmt.Sprintf("%s%d", damaged, len(b.Damaged)+1); key != want {
			return fmt.Errorf("without %s", want)
		}
		b.Damaged = append(b.Damaged, value)
	}
	return nil
}

// What is read into structures has bounds of its own, in bytes: a few bytes of JSON can
// make an object of a hundred.
const (
	maxStatement = 1 << 20
	maxValues    = 256 << 10
)

func readJSON(data []byte, most int, into any) error {
	if len(data) > most {
		return fmt.Errorf("%d bytes, expected %d at most", len(data), most)
	}
	err := json.Unmarshal(data, into)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return fmt.Errorf("offset %d: %s", syntax.Offset, rtmr.Escape(err.Error()))
	case errors.As(err, &typ):
		return fmt.Errorf("offset %d: %s: a JSON %s, expected %s", typ.Offset, rtmr.Escape(typ.Field), rtmr.Escape(typ.Value), typ.Type)
	}
	return errors.New(rtmr.Escape(err.Error()))
}
