package prefork

import (
	"fmt"
	"os"
	"syscall"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/reaper"
)

// The process above the manager that adopts and waits for orphans; see Config.Reaper.

// meetReaper becomes a reaper, which does not return, or finds the one above this process. It is called once, before main.
// A value that cannot be verified was meant for another process.
func (p *process) meetReaper() {
	value, told := inherit.TakeReaper()
	if !reaper.Supported || p.role != inherit.Ordinary && p.role != inherit.Successor {
		return
	}
	if told {
		pid, fd, err := inherit.ParseReaper(value)
		if err == nil {
			p.reaper, err = reaper.Join(pid, fd)
		}
		if err == nil {
			inherit.AddressedTo(pid)
			p.reaperGone = make(chan struct{})
			go func() {
				p.reaper.Wait()
				close(p.reaperGone)
			}()
			return
		}
	}
	if p.role == inherit.Ordinary && (os.Getpid() == 1 || value == inherit.BecomeReaper(os.Getpid())) {
		exe, err := inherit.Executable()
		if err != nil {
			return
		}
		p.spareThreads()
		reaper.Run(exe, os.Args, os.Environ(), func(pid, fd int) string {
			return inherit.ReaperEnv + "=" + inherit.BelowReaper(pid, fd)
		})
	}
}

// wantReaper has this process become a reaper, where the Config asks for one and there is none: it executes the program
// anew, which starts it again below.
func (m *Manager) wantReaper() error {
	switch {
	case !m.cfg.Reaper || self.reaper != nil:
		return nil
	case self.role == inherit.Successor:
		m.log.Warn("no reaper can be put above a manager that has taken the place of another; to have one, stop the program and start it anew")
		return nil
	}
	env := append(os.Environ(), inherit.ReaperEnv+"="+inherit.BecomeReaper(os.Getpid()))
	return fmt.Errorf("prefork: Config.Reaper: %w", syscall.Exec(m.exe, self.args, env))
}

// followReaper has the Manager end when its reaper is gone: nobody would be told how the program ends, or signal it.
func (m *Manager) followReaper() {
	if self.reaper == nil {
		return
	}
	go func() {
		<-self.reaperGone
		m.log.Error("the reaper above this manager is gone; the program ends", "pid", self.reaper.PID())
		m.Deliver(m.cfg.ShutdownSignal)
	}()
}

// belowReaper puts a successor below the reaper that this Manager has, and says what it is to be told.
func belowReaper(spec *proc.Spec) (own []string) {
	if self.reaper == nil {
		return nil
	}
	spec.Files = append(spec.Files, uintptr(self.reaper.FD()))
	return []string{inherit.ReaperEnv + "=" + inherit.BelowReaper(self.reaper.PID(), len(spec.Files)-1)}
}
