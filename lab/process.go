//go:build linux

package lab

import (
	"io"
	"os/exec"
	"runtime"
	"syscall"
)

// process is a program of the host that does not outlive this one, however this
// one ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
	err   error         // of Wait, once ended is closed
}

// startProcess starts a program. The kernel sends its parent-death signal when
// the thread ends that started it (prctl(2), PR_SET_PDEATHSIG), so that thread
// stays.
func startProcess(output io.Writer, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// kill ends the program, as kill -9 does, and waits for its end.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.cmd.Process.Kill()
	<-p.ended
}
