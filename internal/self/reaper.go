package self

import (
	"context"
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
	r, err := marker.ParseReaper(value)
	if err != nil || r.Become {
		return
	}
	if p.Reaper, err = reaper.Join(r.PID, r.FD); err != nil {
		return
	}
	p.Guard = r.Guard
	activation.Readdress(r.PID)
	if p.Guard != 0 {
		activation.Readdress(p.Guard)
	}
	gone, end := context.WithCancel(context.Background())
	p.ReaperGone = gone
	go func() {
		p.Reaper.Wait()
		end()
	}()
}

// ErrNoReaper means that a successor cannot have a reaper that its predecessor
// did not have.
var ErrNoReaper = errors.New("a manager that takes over from another cannot have a new reaper")

// ErrNoGuard means that a program below a reaper cannot have one that kills.
var ErrNoGuard = errors.New("the program runs below a reaper that does not kill: the first Manager of the program must ask for the one that does")

// BecomeReaper executes the program again. Package early then makes this process
// a reaper, and starts the program below it: with kill, by a guard and a reaper
// that kill all descendants. BecomeReaper returns only on failure, or if there is
// a reaper already.
func (p *Process) BecomeReaper(exe string, kill bool) error {
	value := marker.BecomeReaper(os.Getpid())
	if kill {
		value = marker.BecomeGuard(os.Getpid())
	}
	switch {
	case p.Reaper != nil && (!kill || p.Guard != 0):
		return nil
	case p.Role == marker.Successor:
		return ErrNoReaper
	case p.Reaper != nil:
		return ErrNoGuard
	case !reaper.Supported:
		return errors.ErrUnsupported // or the new program would do the same again
	}
	env := append(activation.RestoreNotify(os.Environ(), p.Notify), marker.ReaperEnv+"="+value)
	return fmt.Errorf("execute %s again: %w", exe, syscall.Exec(exe, p.Args, env))
}
