package testlogs

import (
	"encoding/hex"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tallystick/fixtures"
	"tallystick/rtmr"
)

// Machine is one boot of one machine: its logs in order of layers, and values
// of its registers that were not computed from the logs.
type Machine struct {
	Name    string
	Logs    []Log
	Profile string // tally's --profile, for the IMA lists
	Held    rtmr.Values
	By      string          // who says so: a TPM, a quote, a module's own tests
	Differ  []rtmr.Register // what of Held is of another boot, and not what the logs fold to
	Quotes  []TPMQuote      // of the lab's machines
}

// Machines returns all that are here.
func Machines(t testing.TB) []Machine {
	t.Helper()
	var all []Machine
	for _, find := range []func(testing.TB) []Machine{fixtureMachines, captureMachines, goEventlogMachines, dumpMachines, ccMachines, corpusMachines} {
		all = append(all, find(t)...)
	}
	return all
}

// fixtureMachines are the machines of fixtures/, by the order of their folders,
// and each way in which the logs of one tell of its boot. Machines without a TPM
// are left out.
func fixtureMachines(t testing.TB) (all []Machine) {
	t.Helper()
	eachFixture(t, func(dir string, p *fixtures.Provenance) {
		for _, boot := range p.Boots {
			if p.Quoted > 0 {
				all = append(all, fixtureMachine(t, dir, p, boot))
			}
		}
	})
	return all
}

// AheadMachines are the machines of fixtures/ again, with logs that were read
// when more had been measured than was quoted.
func AheadMachines(t testing.TB) (all []Machine) {
	t.Helper()
	eachFixture(t, func(dir string, p *fixtures.Provenance) {
		for _, boot := range p.Ahead {
			all = append(all, fixtureMachine(t, dir, p, boot))
		}
	})
	return all
}

func eachFixture(t testing.TB, f func(dir string, p *fixtures.Provenance)) {
	t.Helper()
	files, err := filepath.Glob(Fixture(t, "*", "provenance.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		p := &fixtures.Provenance{}
		if err := json.Unmarshal(Read(t, file), p); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		f(filepath.Base(filepath.Dir(file)), p)
	}
}

func fixtureMachine(t testing.TB, dir string, p *fixtures.Provenance, boot fixtures.Boot) Machine {
	t.Helper()
	m := Machine{Name: "fixtures/" + dir, Profile: boot.Profile, By: "its TPM"}
	if err := json.Unmarshal(Read(t, Fixture(t, dir, "values.json")), &m.Held); err != nil {
		t.Fatal(err)
	}
	for _, log := range boot.Logs {
		if log == "boot.bin" {
			m.add(t, "tcg2", Fixture(t, dir, log))
			continue
		}
		m.Name += "+" + log
		m.add(t, listFormat(log), Fixture(t, dir, log))
	}
	if boot.Overlap {
		for i := range m.Logs[1 : len(m.Logs)-1] {
			m.Logs[i+1].Data = fixtures.Deleted(m.Logs[i+1].Data, m.Logs[i+2].Data)
		}
	}
	m.Quotes = tpmQuotes(t, Fixture(t, dir), p.Quoted)
	return m
}

func listFormat(name string) string {
	if strings.Contains(name, "ascii") {
		return "ima-ascii"
	}
	return "ima"
}

func (m *Machine) add(t testing.TB, format, path string) {
	t.Helper()
	m.Logs = append(m.Logs, Log{filepath.Base(path), format, Read(t, path)})
}

// captures are the lab's first machines, by their folders in ../shared/lab, with
// the lists that fold to PCR 10, in order.
var captures = []struct {
	dir, profile string
	lists        []string
}{
	{"ng-small-6.1", "padded-sha1:sha384", []string{"ima.binary_runtime_measurements"}},
	{"violations-7.3", "", []string{"ima.binary_runtime_measurements"}},
	{"violations-7.3", "", []string{"ima.ascii_runtime_measurements"}},
	{"violations-7.3", "", []string{"ima.binary_runtime_measurements_sha256"}},
	{"violations-7.3", "", []string{"ima.binary_runtime_measurements_sha384"}},
	{"sig-6.12", "", []string{"ima.binary_runtime_measurements"}},
	{"sig-6.12", "", []string{"ima.binary_runtime_measurements_sha256"}},
	{"sig-6.12", "", []string{"ima.binary_runtime_measurements_sha384"}},
	{"ngv2-verity-6.12", "", []string{"ima.binary_runtime_measurements"}},
	{"ngv2-verity-6.12", "", []string{"ima.ascii_runtime_measurements"}},
	{"ngv2-verity-6.12", "", []string{"ima.binary_runtime_measurements_sha384"}},
	{"kexec-6.12", "", []string{"first/ima.binary_runtime_measurements", "ima.binary_runtime_measurements"}},
	{"kexec-6.12", "", []string{"first/ima.binary_runtime_measurements_sha256", "ima.binary_runtime_measurements_sha384"}},
	{"shim-grub-sb-6.12", "", []string{"ima.binary_runtime_measurements"}},
	{"uki-ovmf2025-7.3", "", []string{"ima.binary_runtime_measurements"}},
	{"uki-ovmf2025-7.3", "", []string{"ima.binary_runtime_measurements_sha256"}},
}

// captureMachines are those of captures that are here.
func captureMachines(t testing.TB) (all []Machine) {
	t.Helper()
	for _, boot := range captures {
		dir, ok := Shared(t, "lab", "captures", boot.dir)
		if !ok {
			continue
		}
		m := Machine{Name: "captures/" + boot.dir, Profile: boot.profile, By: "its TPM", Held: pcrsJSON(t, filepath.Join(dir, "pcrs.json"))}
		m.add(t, "tcg2", filepath.Join(dir, "tpm0.binary_bios_measurements"))
		for _, list := range boot.lists {
			m.Name += "+" + list
			m.add(t, listFormat(list), filepath.Join(dir, list))
		}
		m.Quotes = tpmQuotes(t, dir, 11)
		all = append(all, m)
	}
	return all
}

// pcrsJSON reads {"sha256": {"0": "hex"}, "pcrUpdateCounter": 1}.
func pcrsJSON(t testing.TB, path string) rtmr.Values {
	t.Helper()
	var banks map[string]json.RawMessage
	if err := json.Unmarshal(Read(t, path), &banks); err != nil {
		t.Fatal(err)
	}
	held := rtmr.Values{}
	for name, raw := range banks {
		alg, err := rtmr.ParseAlg(name)
		if err != nil {
			continue
		}
		var values map[uint32]rtmr.Hex
		if err := json.Unmarshal(raw, &values); err != nil {
			t.Fatal(err)
		}
		for i, value := range values {
			set(held, alg, rtmr.PCR(i), value)
		}
	}
	return held
}

// goEventlogMachines are go-eventlog's logs with the PCR banks that its own
// tests replay them against. The values stand in composite literals of its
// test's source, which is in the module: RawLog: testdata.X, Banks: { {0:
// decodeHex("..")}, .. }.
func goEventlogMachines(t testing.TB) (all []Machine) {
	t.Helper()
	dir := ModuleDir(t, GoEventlog)
	files := embeddedFiles(t, filepath.Join(dir, "testdata", "eventlog_data.go"))
	source := parseGo(t, filepath.Join(dir, "tpmeventlog", "replay_test.go"))
	ast.Inspect(source, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || !isIdent(lit.Type, "eventLog") {
			return true
		}
		m := Machine{By: "go-eventlog's tests", Held: rtmr.Values{}}
		for _, elt := range lit.Elts {
			kv := elt.(*ast.KeyValueExpr)
			switch {
			case isIdent(kv.Key, "RawLog"):
				file := files[kv.Value.(*ast.SelectorExpr).Sel.Name]
				m.Name = "go-eventlog/" + file
				b := Read(t, filepath.Join(dir, "testdata", file))
				m.Logs = []Log{{file, tcgFormat(b), b}}
			case isIdent(kv.Key, "Banks"):
				ast.Inspect(kv.Value, func(n ast.Node) bool { m.readHexLiteral(n); return true })
			}
		}
		all = append(all, m)
		return false
	})
	return all
}

// readHexLiteral takes a value from `7: decodeHex("..")`. The bank is the one
// whose digests have that size.
func (m *Machine) readHexLiteral(n ast.Node) {
	kv, ok := n.(*ast.KeyValueExpr)
	if !ok {
		return
	}
	call, ok := kv.Value.(*ast.CallExpr)
	if !ok || !isIdent(call.Fun, "decodeHex") {
		return
	}
	index, _ := strconv.Atoi(kv.Key.(*ast.BasicLit).Value)
	text, _ := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
	value, _ := hex.DecodeString(text)
	alg := map[int]rtmr.Alg{20: rtmr.SHA1, 32: rtmr.SHA256, 48: rtmr.SHA384}[len(value)]
	set(m.Held, alg, rtmr.PCR(index), value)
}

func set(held rtmr.Values, alg rtmr.Alg, pcr rtmr.PCR, value []byte) {
	reg, _ := pcr.Register()
	if held[alg] == nil {
		held[alg] = map[rtmr.Register]rtmr.Hex{}
	}
	held[alg][reg] = value
}

// embeddedFiles maps the variables of a Go file to the files that go:embed
// puts into them.
func embeddedFiles(t testing.TB, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	ast.Inspect(parseGo(t, path), func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Doc != nil {
			files[spec.Names[0].Name], _ = strings.CutPrefix(spec.Doc.List[0].Text, "//go:embed ")
		}
		return true
	})
	return files
}

func parseGo(t testing.TB, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}
