//go:build linux

// Package docs_test runs the commands that the pages for users show, and holds what
// they print against the pages.
//
// A block of the kind "console" is run: its lines that begin with "$ " are commands,
// for one bash for each page, in a folder that the page's setup fills. What follows a
// command is what it prints: "..." in a line stands for any text, and as a line of its
// own for any number of lines. A command has to succeed, unless the next is "echo $?".
// A block of the kind "console not-run" is not run, and the page says where it is
// tested. There are no other blocks with commands.
package docs_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pages are those with commands to run, and what lays out their files.
var pages = map[string]func(t *testing.T, s *shell){
	"guest-owner.md":  guest,
	"auditor.md":      auditor,
	"investigator.md": sources,
	"sev.md":          sev,
}

// built is a folder with tally and tallyd.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "docs-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(built)
		if out, err := exec.Command("go", "build", "-o", built, "../cmd/tally", "../cmd/tallyd").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func TestPages(t *testing.T) {
	for page, setup := range pages {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			steps, err := readPage(page)
			if err != nil {
				t.Fatal(err)
			}
			s := newShell(t, page == "guest-owner.md")
			setup(t, s)
			for i, step := range steps {
				looksAtStatus := i+1 < len(steps) && strings.HasPrefix(steps[i+1].command, "echo $?")
				if err := s.check(step, looksAtStatus); err != nil {
					t.Fatalf("%s:%d: %v", page, step.line, err)
				}
			}
		})
	}
}

// step is a command and what it prints.
type step struct {
	line    int
	command string
	prints  []string
}

// readPage returns the commands of a page's blocks.
func readPage(page string) (steps []step, err error) {
	data, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	kind, inside := "", false
	for i, line := range strings.Split(string(data), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		last := len(steps) - 1
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case isFence:
			inside = !inside
			if kind = fence; inside && kind == "" {
				return nil, fmt.Errorf("%s:%d: a block without a kind", page, i+1)
			}
		case !inside || kind == "console not-run":
		case kind != "console" && isCommand:
			return nil, fmt.Errorf("%s:%d: a command in a block that is not run", page, i+1)
		case kind != "console":
		case isCommand:
			steps = append(steps, step{line: i + 1, command: command})
		case last < 0:
			return nil, fmt.Errorf("%s:%d: output before the first command", page, i+1)
		case strings.HasSuffix(steps[last].command, "\\") && len(steps[last].prints) == 0:
			steps[last].command += "\n" + line
		default:
			steps[last].prints = append(steps[last].prints, line)
		}
	}
	if inside || len(steps) == 0 {
		return nil, fmt.Errorf("%s: %d commands, and a block open at the end: %t", page, len(steps), inside)
	}
	return steps, nil
}

// pattern is what matches what a command may print.
func pattern(prints []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range prints {
		if strings.TrimSpace(line) == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(line, " ")), `\.\.\.`, `.*?`) + ` *\n`)
	}
	return regexp.MustCompile(b.String() + `\z`)
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		page, printed string
		match         bool
	}{
		{"", "", true},
		{"", "a\n", false},
		{"a\n", "a\n", true},
		{"a\n", "a b\n", false},
		{"a ... c\n", "a b b c\n", true},
		{"a ... c\n", "a b\nc\n", false},
		{"...\nb\n", "a\na\nb\n", true},
		{"...\nb\n...\n", "b\n", true},
		{"a\n...\n", "b\n", false},
		{"a.c\n", "abc\n", false},
	} {
		prints := strings.Split(strings.TrimSuffix(c.page, "\n"), "\n")
		if c.page == "" {
			prints = nil
		}
		if pattern(prints).MatchString(c.printed) != c.match {
			t.Errorf("%q, of %q: expected %t", c.page, c.printed, c.match)
		}
	}
}

// patience is how long a status has to become the page's.
const patience = 20 * time.Second

// check runs a command and holds what it prints against the page. A status is asked
// for until it is as shown: what it waits for takes time.
func (s *shell) check(c step, anyStatus bool) error {
	want := pattern(c.prints)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		printed, status, err := s.run(c.command)
		if err != nil {
			return err
		}
		right := status == 0 || anyStatus
		if right && want.MatchString(printed) {
			return nil
		}
		if !strings.HasPrefix(c.command, "tallyd status") || time.Now().After(deadline) {
			return fmt.Errorf("$ %s\nexit status %d\n%s\nthe page has\n%s", c.command, status, printed, strings.Join(c.prints, "\n"))
		}
	}
}

// shell is a bash in a folder of its own.
type shell struct {
	dir   string
	stdin io.Writer
	out   *bufio.Reader
}

// newShell starts a shell; a private one has a mount namespace of its own, with an
// empty /run, and is root there.
func newShell(t *testing.T, private bool) *shell {
	t.Helper()
	s := &shell{dir: t.TempDir()}
	cmd := exec.Command("bash", "--norc", "--noprofile")
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + built + ":" + os.Getenv("PATH"), "NO_COLOR=1", "LC_ALL=C", "HOME=" + s.dir, "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if private && os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	} else if private {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	var err error
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) && private {
		t.Skipf("no user namespace: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it started too
		cmd.Wait()
	})
	s.must(t, "exec 2>&1")
	if private {
		if out, status, err := s.run("mount -t tmpfs none /run"); err != nil || status != 0 {
			t.Skipf("no user namespace: %v%s", err, out)
		}
	}
	return s
}

// endMark is printed behind each command's output, with its exit status.
const endMark = "@@end of command@@"

// run runs a command and returns what it printed.
func (s *shell) run(command string) (printed string, status int, err error) {
	_, err = fmt.Fprintf(s.stdin, "{ %s\n} </dev/null\n__status=$?; printf '%s %%d\\n' $__status; (exit $__status)\n", command, endMark)
	if err != nil {
		return "", 0, err
	}
	var b strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		text, end, found := strings.Cut(line, endMark)
		b.WriteString(text)
		if found {
			if text != "" {
				b.WriteByte('\n')
			}
			_, err := fmt.Sscanf(end, "%d", &status)
			return b.String(), status, err
		}
		if err != nil {
			return b.String(), 0, fmt.Errorf("$ %s\n%s\nthe shell ended: %w", command, b.String(), err)
		}
	}
}

// must runs what has to succeed.
func (s *shell) must(t *testing.T, command string) {
	t.Helper()
	if out, status, err := s.run(command); err != nil || status != 0 {
		t.Fatalf("$ %s\n%s\nexit status %d, %v", command, out, status, err)
	}
}

// write writes a file into the shell's folder.
func (s *shell) write(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestReadme runs the README's commands on fixtures.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t, false)
	sources(t, s)
	s.must(t, "ln -s "+built+"/tally tally")
	ran := 0
	for _, block := range regexp.MustCompile(`(?m)(?:^    .*\n)+`).FindAllString(string(data), -1) {
		if !strings.Contains(block, "fixtures/") {
			continue
		}
		commands := strings.ReplaceAll(block, "go build ./cmd/tally\n", "\n") // it is built
		for _, command := range strings.Split(strings.ReplaceAll(commands, "\\\n", " "), "\n") {
			if command = strings.TrimSpace(command); !strings.Contains(command, "tally ") && !strings.HasPrefix(command, "cd ") {
				continue
			}
			// 1 is an answer: that two logs differ.
			if out, status, err := s.run(command); err != nil || status > 1 {
				t.Errorf("$ %s\n%s\nexit status %d, %v", command, out, status, err)
			}
			ran++
		}
		s.must(t, "cd "+s.dir)
	}
	if ran < 6 {
		t.Errorf("%d commands", ran)
	}
}
