package quote_test

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

var (
	sha1A   = strings.Repeat("0a", 20)
	sha1B   = strings.Repeat("0b", 20)
	sha256A = strings.Repeat("ab", 32)
	sha256B = strings.Repeat("cd", 32)
	sha384A = strings.Repeat("ef", 48)
)

// values writes expected values down: "sha256 pcr0 HEX".
func values(t testing.TB, rows ...string) rtmr.Values {
	t.Helper()
	v := rtmr.Values{}
	for _, row := range rows {
		f := strings.Fields(row)
		alg, err := rtmr.ParseAlg(f[0])
		if err != nil {
			t.Fatal(err)
		}
		value, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		if v[alg] == nil {
			v[alg] = map[rtmr.Register]rtmr.Hex{}
		}
		v[alg][rtmr.MustParse(f[1])] = value
	}
	return v
}

var upper = strings.ToUpper

func valueFiles(t testing.TB) map[string]struct {
	text string
	want rtmr.Values
} {
	two := values(t, "sha1 pcr0 "+sha1A, "sha1 pcr10 "+sha1B, "sha256 pcr0 "+sha256A, "sha256 pcr10 "+sha256B)
	return map[string]struct {
		text string
		want rtmr.Values
	}{
		"json": {`{"sha1":{"pcr0":"` + sha1A + `","pcr10":"` + sha1B + `"},"sha256":{"pcr0":"` + sha256A + `","pcr10":"` + sha256B + `"}}`, two},
		"json_bare_indices": {` {"sha256": {"0": "` + sha256A + `", "10": "` + sha256B + `"},
			"SHA-1": {"0": "0x` + upper(sha1A) + `", "10": "` + sha1B + `"}}` + "\n", two},
		"json_tdx":   {`{"sha384":{"mrtd":"` + sha384A + `","rtmr3":"` + sha384A + `"}}`, values(t, "sha384 mrtd "+sha384A, "sha384 rtmr3 "+sha384A)},
		"empty_bank": {`{"sha1":{},"sha384":{"pcr1":"` + sha384A + `"}}`, values(t, "sha384 pcr1 "+sha384A)},
		"tpm2_pcrread_5": {"  sha1:\n    0 : 0x" + upper(sha1A) + "\n    10: 0x" + upper(sha1B) + "\n  sha256:\n    0 : 0x" + upper(sha256A) +
			"\n    10: 0x" + upper(sha256B) + "\n  sha384:\n  sha512:\n", two},
		"tpm2_pcrread_4_windows_line_ends": {"sha1:\r\n  0 : 0x" + upper(sha1A) + "\r\n  10: 0x" + upper(sha1B) + "\r\nsha256:\r\n  0 : 0x" + upper(sha256A) +
			"\r\n  10: 0x" + upper(sha256B) + "\r\n", two},
		"tpm2_pcrlist_3": {"sha1 :\n  0  : " + sha1A + "\n  10 : " + sha1B + "\nsha256 :\n  0  : " + sha256A + "\n  10 : " + sha256B + "\n", two},
		"sysfs_grep": {"/sys/class/tpm/tpm0/pcr-sha1/0:" + upper(sha1A) + "\n/sys/class/tpm/tpm0/pcr-sha1/10:" + upper(sha1B) +
			"\n/sys/class/tpm/tpm0/pcr-sha256/0:" + upper(sha256A) + "\n/sys/class/tpm/tpm0/pcr-sha256/10:" + upper(sha256B) + "\n", two},
		"sysfs_grep_here": {"pcr-sha384/17:" + upper(sha384A), values(t, "sha384 pcr17 "+sha384A)},
		"sysfs_head": {"==> /sys/class/tpm/tpm0/pcr-sha256/0 <==\n" + upper(sha256A) + "\n\n==> /sys/class/tpm/tpm0/pcr-sha256/1 <==\n" + upper(sha256B) + "\n",
			values(t, "sha256 pcr0 "+sha256A, "sha256 pcr1 "+sha256B)},
		"sysfs_pcrs": {"PCR-00: " + upper(strings.Repeat("0a ", 20)) + "\nPCR-10: " + upper(strings.Repeat("0b ", 20)) + "\n",
			values(t, "sha1 pcr0 "+sha1A, "sha1 pcr10 "+sha1B)},
	}
}

func TestParseValues(t *testing.T) {
	for name, file := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			got, err := quote.ParseValues([]byte(file.text))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, file.want) {
				t.Errorf("got %v, want %v", got, file.want)
			}
		})
	}
}

func TestParseValuesRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"nothing":                {"", "no register values"},
		"blank":                  {" \n\n", "no register values"},
		"empty_object":           {"{}", "no register values"},
		"array":                  {"[]", `line 1: "[]", expected a bank`},
		"duplicate_register":     {`{"sha1":{"pcr0":"` + sha1A + `","pcr0":"` + sha1B + `"}}`, "sha1 pcr0 comes twice"},
		"duplicate_bank":         {`{"sha1":{"pcr0":"` + sha1A + `"},"SHA-1":{"pcr1":"` + sha1A + `"}}`, "bank sha1 comes twice"},
		"duplicate_by_index":     {`{"sha1":{"0":"` + sha1A + `","00":"` + sha1B + `"}}`, "sha1 pcr0 comes twice"},
		"mixed_names":            {`{"sha1":{"0":"` + sha1A + `","pcr1":"` + sha1B + `"}}`, `both "0" and "pcr1"`},
		"unknown_register":       {`{"sha1":{"pcr24":"` + sha1A + `"}}`, `unknown register "pcr24"`},
		"unknown_index":          {`{"sha1":{"24":"` + sha1A + `"}}`, `unknown register "24"`},
		"negative_index":         {`{"sha1":{"-1":"` + sha1A + `"}}`, `unknown register "-1"`},
		"unknown_bank":           {`{"md5":{"pcr0":"` + sha1A + `"}}`, `bank "md5"`},
		"escape_in_a_name":       {`{"\u001b[31m":{}}`, `bank "\x1b[31m"`},
		"length":                 {`{"sha256":{"pcr7":"` + sha1A + `"}}`, "sha256 pcr7 has 20 bytes, expected 32"},
		"empty_value":            {`{"sha256":{"pcr7":""}}`, "sha256 pcr7 has 0 bytes, expected 32"},
		"not_hex":                {`{"sha1":{"pcr7":"zz"}}`, `sha1 pcr7: "zz" is not hexadecimal`},
		"number":                 {`{"sha1":{"pcr7":7}}`, "sha1 pcr7: 7, expected a string"},
		"null":                   {`{"sha1":{"pcr7":null}}`, "sha1 pcr7: null, expected a string"},
		"bank_is_a_string":       {`{"sha1":"` + sha1A + `"}`, "expected an object of sha1 registers"},
		"trailing":               {`{"sha1":{"pcr0":"` + sha1A + `"}} {}`, "more follows"},
		"cut":                    {`{"sha1":{"pcr0":"` + sha1A + `"`, "the JSON ends early"},
		"text_without_bank":      {"0 : 0x" + sha1A, "line 1: PCR 0 comes before any bank"},
		"text_bank_unknown":      {"sha1:\n0 : 0x" + sha1A + "\nfoo:\n", `line 3: unknown hash algorithm "foo"`},
		"text_length":            {"sha256:\n\n 3 : 0x" + sha1A, "line 3: sha256 pcr3 has 20 bytes, expected 32"},
		"text_twice":             {"sha1:\n0 : 0x" + sha1A + "\nsha1:\n0 : 0x" + sha1A, "line 4: sha1 pcr0 comes twice"},
		"text_pcr_24":            {"sha1:\n24: 0x" + sha1A, `line 2: sha1: "24" is no PCR`},
		"value_without_path":     {sha256A + "\n" + sha256B, "line 1: "},
		"path_without_value":     {"==> pcr-sha1/0 <==\n", "the value of sha1 pcr0 is missing"},
		"path_gives_no_bank":     {"pcr-sha1/0:" + sha1A + "\n1 : " + sha1A, "line 2: PCR 1 comes before any bank"},
		"path_of_another_file":   {"/sys/class/tpm/tpm0/caps:" + sha1A, "line 1: "},
		"pcrs_of_another_length": {"PCR-00: AA BB", "line 1: sha1 pcr0 has 2 bytes, expected 20"},
		"control_characters":     {"\x1b[31m\x00", `line 1: "\x1b[31m\x00", expected`},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := quote.ParseValues([]byte(c.text))
			if err == nil {
				t.Fatalf("was read as %v", v)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, expected it to say %s", err, c.says)
			}
		})
	}
}

func TestOpenValues(t *testing.T) {
	for name, file := range valueFiles(t) {
		q, err := quote.Open([]byte(file.text), quote.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		l, _ := q.Link(quote.Signature)
		if q.Kind != quote.Values || q.Trusted() || l.Status != quote.Missing || !reflect.DeepEqual(q.Values, file.want) {
			t.Errorf("%s: %+v", name, q)
		}
	}
	skipped, err := quote.Open([]byte(`{"sha1":{"0":"`+sha1A+`"}}`), quote.Options{SkipSignature: true})
	if err != nil || !skipped.Trusted() {
		t.Errorf("with SkipSignature: %+v %v", skipped, err)
	}
	fresh, err := quote.Open([]byte(`{"sha1":{"0":"`+sha1A+`"}}`), quote.Options{SkipSignature: true, Nonce: []byte{1}})
	if err != nil || fresh.Trusted() {
		t.Errorf("a nonce cannot be checked, and the values passed as fresh: %+v %v", fresh, err)
	}
}

// Other JSON and text is left to the formats that know it.
func TestOpenTakesNoOtherFileForValues(t *testing.T) {
	for _, text := range []string{"{}", `{"event_log":[]}`, `{"quote":"00"}`, "10 0a0b ima-ng", "key: value", "hello"} {
		if q, err := quote.Open([]byte(text), quote.Options{}); err == nil && q.Kind == quote.Values {
			t.Errorf("%s was opened as %v", text, q)
		}
	}
}

// The values beside the corpus' and the captures' quotes, held against
// encoding/json, which has no opinion on names.
func TestParseValuesOfRealFiles(t *testing.T) {
	var files []string
	for _, name := range []string{"azure-snp/pcrs.json", "tpm-failed-pcr0/good-pcrs.json", "tpm-failed-pcr0/failed-pcrs.json"} {
		if path, ok := testlogs.Shared(t, "corpus", filepath.FromSlash(name)); ok {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		t.Skip("../shared/corpus is not here")
	}
	for _, path := range files {
		data := testlogs.Read(t, path)
		got, err := quote.ParseValues(data)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var want map[string]map[string]string
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		n := 0
		for bank, registers := range want {
			alg, _ := rtmr.ParseAlg(bank)
			for index, value := range registers {
				n++
				if got := got[alg][rtmr.MustParse("pcr"+index)].String(); got != value {
					t.Errorf("%s: %s %s: got %s, want %s", path, bank, index, got, value)
				}
			}
		}
		if count(got) != n || n == 0 {
			t.Errorf("%s: %d values, want %d", path, count(got), n)
		}
	}
}

func count(v rtmr.Values) (n int) {
	for bank := range maps.Values(v) {
		n += len(bank)
	}
	return n
}

func FuzzParseValues(f *testing.F) {
	files := valueFiles(f)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f.Add([]byte(files[name].text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := quote.ParseValues(data)
		if err != nil {
			return
		}
		if err := v.Validate(); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		again, err := quote.ParseValues(text)
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%s: %v, from %v", text, err, v)
		}
	})
}
