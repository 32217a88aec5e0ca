package self

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/reaper"
)

// joinReaper finds the reaper above this process. A value that cannot be verified
// was meant for another process.
func (p *Process) joinReaper() {
	value, ok := marker.TakeReaper()
	if !ok || !reaper.Supported || p.Role != marker.Ordinary && p.Role != marker.Successor {
		return
	}
	pid, fd, err := marker.ParseReaper(value)
	if err == nil {
		p.Reaper, err = reaper.Join(pid, fd)
	}
	if err != nil {
		return
	}
	activation.Readdress(pid)
	p.ReaperGone = make(chan struct{})
	go func() {
		p.Reaper.Wait()
		close(p.ReaperGone)
	}()
}

// ErrNoReaper means that a successor cannot have a reaper that its predecessor
// did not have.
var ErrNoReaper = errors.New("a manager that takes over from another cannot have a new reaper")

// BecomeReaper executes the program again. Package early then makes this process
// a reaper, and starts the program below it. BecomeReaper returns only on failure,
// or if there is a reaper already.
func (p *Process) BecomeReaper(exe string) error {
	switch {
	case p.Reaper != nil:
		return nil
	case p.Role == marker.Successor:
		return ErrNoReaper
	case !reaper.Supported:
		return errors.ErrUnsupported // or the new program would do the same again
	}
	env := append(activation.RestoreNotify(os.Environ(), p.Notify), marker.ReaperEnv+"="+marker.BecomeReaper(os.Getpid()))
	return fmt.Errorf("execute %s again: %w", exe, syscall.Exec(exe, p.Args, env))
}
