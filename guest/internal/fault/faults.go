//go:build faults && linux

package fault

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The environment of a program with faults:
//
//	TALLYSTICK_FAULT      "NAME" or "NAME:N": dies at the point, the first or Nth
//	                      time that it comes there; "1/N": dies at any point, once
//	                      in N times; nothing happens if it is unset
//	TALLYSTICK_FAULT_LOG  file to which the name of the point is appended before
//	TALLYSTICK_FAULT_HOW  "kill", or "stop": the process stops, as by SIGSTOP,
//	                      for somebody to end the machine
const (
	faultEnv = "TALLYSTICK_FAULT"
	logEnv   = "TALLYSTICK_FAULT_LOG"
	howEnv   = "TALLYSTICK_FAULT_HOW"
)

// plan is what the environment says.
var plan = parse(os.Getenv(faultEnv))

type faults struct {
	sync.Mutex
	name string // "" for any
	left int    // times to come there before it dies
	once int    // in so many times; 0 for never
}

func parse(text string) *faults {
	if text == "" {
		return &faults{}
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			panic(fmt.Sprintf("%s=%q, expected NAME, NAME:N or 1/N", faultEnv, text))
		}
		return n
	}
	if once, ok := strings.CutPrefix(text, "1/"); ok {
		return &faults{once: number(once)}
	}
	name, times, ok := strings.Cut(text, ":")
	if !ok {
		times = "1"
	}
	return &faults{name: name, left: number(times)}
}

// due reports whether it is time to die.
func (f *faults) due(name string) bool {
	if f.once > 0 {
		return rand.IntN(f.once) == 0
	}
	if f.name != name {
		return false
	}
	f.left--
	return f.left == 0
}

// Compiled says whether points do anything.
const Compiled = true

// Point is where the process may die.
func Point(name string) {
	plan.Lock() // held for ever by who dies: nobody else goes past a point
	if plan.due(name) {
		die(name)
	}
	plan.Unlock()
}

// Torn is where the process may die within a write, of which a part is done: any
// part, but all of it.
func Torn(name string, w io.WriterAt, data []byte, at int64) {
	plan.Lock()
	if plan.due(name) {
		if _, err := w.WriteAt(data[:rand.IntN(max(1, len(data)))], at); err != nil {
			panic(err)
		}
		die(name)
	}
	plan.Unlock()
}

// die ends the process at once, without any of its code running after it.
func die(name string) {
	if path := os.Getenv(logEnv); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err == nil {
			_, err = fmt.Fprintln(f, name)
		}
		if err != nil {
			panic(err)
		}
		f.Close()
	}
	sig := unix.SIGKILL
	if os.Getenv(howEnv) == "stop" {
		sig = unix.SIGSTOP
	}
	unix.Kill(os.Getpid(), sig)
	select {}
}
