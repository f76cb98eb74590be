package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tally": main})
}

var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){"repeat": repeat, "terminal": terminal}

// scriptSetups lay out files for a script, by its name.
var scriptSetups = map[string]func(*testing.T, *testscript.Env) error{}

func TestScripts(t *testing.T) {
	fixtures, err := filepath.Abs("../../fixtures")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("FIXTURES", fixtures)
			if setup := scriptSetups[strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")]; setup != nil {
				return setup(t, env)
			}
			return nil
		},
		Cmds: scriptCommands,
	})
}

// repeat writes a file's content N times over: repeat FILE N TO.
func repeat(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: repeat FILE N TO")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), bytes.Repeat([]byte(ts.ReadFile(args[0])), n), 0o666))
}

// terminal runs a command on a terminal of its own, and puts what it printed
// there into a file: [!] terminal FILE COMMAND ARG...
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: terminal FILE COMMAND ARG...")
	}
	path, err := exec.LookPath(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], args[1]))
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), []string{"TERM=xterm", "NO_COLOR=" + ts.Getenv("NO_COLOR")}
	tty, err := pty.Start(cmd)
	ts.Check(err)
	defer tty.Close()
	var printed bytes.Buffer
	io.Copy(&printed, tty) // ends with EIO when the command has, on Linux
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), printed.Bytes(), 0o666))
	if err := cmd.Wait(); (err != nil) != neg {
		ts.Fatalf("%v: %v\n%s", args[1:], err, printed.Bytes())
	}
}
