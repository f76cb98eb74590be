package quote_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"tallystick/quote"
	"tallystick/rtmr"
)

// swtpm is a running software TPM, and a folder in which tpm2-tools work on it.
type swtpm struct {
	t    *testing.T
	dir  string
	tcti string
}

func startSwtpm(t *testing.T) *swtpm {
	t.Helper()
	command := tool(t, "swtpm", "swtpm")
	tool(t, "tpm2_quote", "tpm2-tools")
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	port := freePorts(t)
	address := "127.0.0.1:" + fmt.Sprint(port)
	server := exec.Command(command, "socket", "--tpm2", "--tpmstate", "dir="+state, "--flags", "not-need-init,startup-clear",
		"--server", fmt.Sprintf("type=tcp,bindaddr=127.0.0.1,port=%d", port), "--ctrl", fmt.Sprintf("type=tcp,bindaddr=127.0.0.1,port=%d", port+1))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	for range 100 { // it serves one connection after the other
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return &swtpm{t, dir, fmt.Sprintf("swtpm:host=127.0.0.1,port=%d", port)}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("swtpm does not listen")
	return nil
}

// freePorts returns the first of two neighbouring ports: a TPM's control channel
// is on the next one.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		first.Close()
		if err == nil {
			second.Close()
			return port
		}
	}
	t.Fatal("no two free ports")
	return 0
}

// run runs a tool, and drops what it leaves in the TPM: there is no resource
// manager.
func (s *swtpm) run(line string, args ...any) {
	s.t.Helper()
	for _, line := range []string{fmt.Sprintf(line, args...), "tpm2_flushcontext -t"} {
		fields := strings.Fields(line)
		cmd := exec.Command(fields[0], fields[1:]...)
		cmd.Dir = s.dir
		cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI="+s.tcti)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}

func (s *swtpm) read(name string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *swtpm) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestSwtpm: a TPM and tpm2-tools, from the registers to a credential. The PCR
// file is what the tools wrote, and the composite what the TPM hashed.
func TestSwtpm(t *testing.T) {
	s := startSwtpm(t)
	s.run("tpm2_createek -c ek.ctx -G rsa -u ek.pub")
	for i := range 24 {
		if i < 17 || i == 23 {
			s.run("tpm2_pcrextend %d:sha1=%040x,sha256=%064x,sha384=%096x", i, i+1, i+1, i+1)
		}
	}
	for _, ak := range []struct{ alg, scheme, hash string }{{"ecc", "ecdsa", "sha256"}, {"rsa", "rsassa", "sha256"}, {"rsa", "rsapss", "sha384"}} {
		s.run("tpm2_createak -C ek.ctx -c ak.ctx -G %s -g %s -s %s -u ak.pub -n ak.name", ak.alg, ak.hash, ak.scheme)
		s.run("tpm2_readpublic -c ak.ctx -f pem -o ak.pem")
		for _, selection := range []string{
			"sha256:0,1,2,3,4,5,6,7,8,9,10", "sha256:0,10+sha1:7", "sha384:1,2,3+sha1:16,23+sha256:0,1,2,3,4,5,6,7",
			"sha1:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23", "sha1:0+sha256:23",
		} {
			for _, format := range []string{"tss", "plain"} {
				t.Run(strings.Join([]string{ak.scheme, ak.hash, selection, format}, "/"), func(t *testing.T) {
					on := &swtpm{t, s.dir, s.tcti}
					on.run("tpm2_quote -c ak.ctx -l %s -q 6e6f6e6365 -m message -s signature -f %s -o pcrs -g %s --scheme %s", selection, format, ak.hash, ak.scheme)
					checkSwtpm(on, selection, ak.hash)
				})
			}
		}
		if !t.Failed() {
			activateSwtpm(s)
		}
	}
}

// checkSwtpm opens what tpm2_quote left in the folder.
func checkSwtpm(s *swtpm, selection, hash string) {
	t := s.t
	t.Helper()
	for _, key := range []string{"ak.pub", "ak.pem"} {
		q := open(t, s.read("message"), quote.Options{Signature: s.read("signature"), Key: s.read(key), Nonce: []byte("nonce")})
		values, err := quote.ParseTPM2ToolsPCRs(s.read("pcrs"))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Bind(values); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{quote.Signature, quote.Nonce, quote.Binding} {
			status(t, q, link, quote.Verified, "")
		}
		if got := fact(q, "pcrSelect"); got != selection {
			t.Errorf("selects %s, expected %s", got, selection)
		}
		if got := q.Composites[0].Digest.Alg.String(); got != hash || len(q.Warnings) != 0 {
			t.Errorf("composite in %s, expected %s; warnings %q", got, hash, q.Warnings)
		}
		if pcr23, ok := q.Values[rtmr.SHA256][rtmr.MustParse("pcr23")]; ok {
			want := make(rtmr.Hex, 32)
			rtmr.SHA256.Extend(want, append(make([]byte, 31), 24))
			if !bytes.Equal(pcr23, want) {
				t.Errorf("pcr23 is %s, expected %s", pcr23, want)
			}
		}
	}
}

// seeded is randomness whose first bytes are known: go-tpm takes its seed first.
type seeded struct{ seed []byte }

func (s *seeded) Read(p []byte) (int, error) {
	if len(s.seed) > 0 {
		n := copy(p, s.seed)
		s.seed = s.seed[n:]
		return n, nil
	}
	return rand.Read(p)
}

// activateSwtpm has the record of an activation verified down to the credential's
// bytes.
func activateSwtpm(s *swtpm) {
	t := s.t
	t.Helper()
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.read("ek.pub")[2:])
	if err != nil {
		t.Fatal(err)
	}
	root := newAuthority(t, "manufacturer")
	public, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	opts := quote.Options{Signature: s.read("signature"), Key: s.read("ak.pub"), Nonce: []byte("nonce"), Activation: activationOf(s),
		EKCert: root.issue(t, public, ekCertificate), EKRoots: root.pem(), Time: epoch}
	q := open(t, s.read("message"), opts)
	status(t, q, quote.Chain, quote.Verified, "its credential is what the seed")
	if !q.Trusted() {
		t.Errorf("%v", q.Links)
	}
}

// activationOf makes a credential of a known seed, lets the TPM give the secret
// back, and returns the record of that.
func activationOf(s *swtpm) []byte {
	t := s.t
	t.Helper()
	ekPublic := s.read("ek.pub")
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](ekPublic[2:])
	if err != nil {
		t.Fatal(err)
	}
	ek, err := tpm2.ImportEncapsulationKey(area)
	if err != nil {
		t.Fatal(err)
	}
	seed, secret := bytes.Repeat([]byte{0x5a}, 32), []byte("between verifier and TPM")
	credential, encrypted, err := tpm2.CreateCredential(io.Reader(&seeded{seed}), ek, s.read("ak.name"), secret)
	if err != nil {
		t.Fatal(err)
	}
	blob := []byte{0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1} // tpm2-tools' own header
	for _, b := range [][]byte{credential, encrypted} {
		blob = append(binary.BigEndian.AppendUint16(blob, uint16(len(b))), b...)
	}
	s.write("credential", blob)
	s.run("tpm2_startauthsession --policy-session -S session")
	s.run("tpm2_policysecret -S session -c endorsement")
	s.run("tpm2_activatecredential -c ak.ctx -C ek.ctx -i credential -o secret -P session:session")
	s.run("tpm2_flushcontext session")

	record, err := json.Marshal(quote.Activation{EKPublic: ekPublic, AKPublic: s.read("ak.pub"), AKName: s.read("ak.name"),
		Credential: credential, EncryptedSecret: encrypted, Sent: secret, Returned: s.read("secret"), Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return record
}
