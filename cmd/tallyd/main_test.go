//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/rtmr"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tallyd": main})
}

func TestScripts(t *testing.T) {
	tally := goBuild(t, "../tally")
	fixtures, err := filepath.Abs("../../fixtures")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("FIXTURES", fixtures)
			env.Setenv("PATH", env.Getenv("PATH")+string(filepath.ListSeparator)+filepath.Dir(tally))
			return nil
		},
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Geteuid() == 0, nil },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answers": answers, "imalist": imaList, "nobody": nobody, "flip": flip, "until": until,
		},
	})
}

// goBuild builds a program, static, as it is packaged.
func goBuild(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	build := exec.Command("go", "build", "-o", path, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// answers waits until a service listens at a socket: answers SOCKET.
func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answers SOCKET")
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", ts.MkAbs(args[0]))
		if err == nil {
			c.Close()
			return
		}
		if time.Since(began) > patience {
			ts.Fatalf("nobody listens: %v", err)
		}
	}
}

// until runs a command until it prints a text: until TEXT COMMAND ARG...
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND ARG...")
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Since(began) > patience {
			ts.Fatalf("%v\n%s", err, ts.ReadFile("stdout"))
		}
	}
}

// imaList writes the kernel's list, of N entries, below a root: imalist ROOT N.
func imaList(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: imalist ROOT N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(writeList(ts.MkAbs(args[0]), n))
}

func writeList(root string, n int) error {
	dir := filepath.Join(root, "sys/kernel/security/ima")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	list, err := os.Create(filepath.Join(dir, "binary_runtime_measurements"))
	if err != nil {
		return err
	}
	defer list.Close()
	if err := imagen.Write(list, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, n); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "runtime_measurements_count"), fmt.Appendln(nil, n), 0o644)
}

// nobody runs tallyd as another user: [!] nobody ARG...
func nobody(ts *testscript.TestScript, neg bool, args []string) {
	// The script's folders are root's alone, and its programs are in one of them.
	for dir := ts.MkAbs("."); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		ts.Check(os.Chmod(dir, 0o755))
	}
	program := ts.MkAbs("tallyd-of-nobody")
	self, err := os.ReadFile("/proc/self/exe")
	ts.Check(err)
	ts.Check(os.MkdirAll(program, 0o755))
	program = filepath.Join(program, "tallyd") // by which name the test is the command
	ts.Check(os.WriteFile(program, self, 0o755))
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + ts.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(ts.Stdout(), "%s", out)
	ts.Check(os.WriteFile(ts.MkAbs("said"), out, 0o644))
	if (err != nil) != neg {
		ts.Fatalf("%v\n%s", err, out)
	}
}

// flip alters a byte in the middle of a file, or at an offset from its end:
// flip FILE [OFFSET].
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: flip FILE [OFFSET]")
	}
	content := []byte(ts.ReadFile(args[0]))
	at := len(content) / 2
	if len(args) > 1 {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		at = len(content) - n
	}
	content[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o644))
}
