//go:build unix

package manager_test

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// states counts the workers by state.
func (r *rig) states(state prefork.State) (n int) {
	for _, w := range r.Snapshot().Workers {
		if w.State == state {
			n++
		}
	}
	return n
}

// A rolling reload of a Command waits until each is ready, in each way in which it
// can become that, and is given up if one ends before.
func TestRollOfACommandWaits(t *testing.T) {
	const slow = 2 * time.Second
	newline := func(_ *rig, p *proctest.Process) { p.Send([]byte("up\n")) }
	setReady := func(r *rig, p *proctest.Process) {
		if !r.SetReady(p.Pid()) {
			r.t.Errorf("SetReady(%d) is false for a starting Command", p.Pid())
		}
	}
	for name, c := range map[string]struct {
		readiness prefork.Readiness
		report    func(*rig, *proctest.Process)
	}{
		"FD":                {prefork.Readiness{FD: 3}, newline},
		"FD, SetReady":      {prefork.Readiness{FD: 3}, setReady},
		"After":             {prefork.Readiness{After: slow}, nil},
		"After, SetReady":   {prefork.Readiness{After: time.Hour}, setReady},
		"Explicit":          {prefork.Readiness{Explicit: true}, setReady},
		"Explicit, forever": {prefork.Readiness{Explicit: true, Timeout: -1}, setReady},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := false
				var r *rig
				r = newRig(t, prefork.Config{MaxWorkers: 2, TrapSignals: rollingHup, Readiness: c.readiness, Command: []string{"/bin/sh"}}, func(p *proctest.Process) {
					switch {
					case broken:
						time.AfterFunc(slow-boot, func() { p.Exit(proc.Status{Code: 1}) })
					case c.report != nil:
						time.AfterFunc(slow, func() { c.report(r, p) })
					}
				}, nil)
				done := r.startRun(context.Background())
				time.Sleep(slow - boot)
				if n := r.states(prefork.StateStarting); n != 2 {
					t.Errorf("%d Commands are starting, want 2", n)
				}
				time.Sleep(2 * boot)
				if n := r.states(prefork.StateReady); n != 2 {
					t.Errorf("%d Commands are ready, want 2", n)
				}
				time.Sleep(time.Minute)

				reloaded := r.reload(prefork.Forward{})
				time.Sleep(slow - boot)
				pending(t, "a little early", reloaded)
				r.wantSignals(1)
				r.wantSignals(2)
				time.Sleep(2 * boot)
				r.wantSignals(1, term)
				r.wantSignals(2)
				time.Sleep(slow)
				answered(t, "when both are ready", reloaded, 2, "")
				r.wantSignals(2, term)

				broken = true
				reloaded = r.reload(prefork.Forward{})
				time.Sleep(slow)
				answered(t, "after an early end", reloaded, 3, "generation 3 failed")
				if n := r.states(prefork.StateReady); n != 2 {
					t.Errorf("%d Commands of the previous generation are ready, want 2", n)
				}
				broken = false
				r.Shutdown()
				<-done
			})
		})
	}
}

// A Command with a readiness descriptor is no worker that knows the messages: it
// gets none, is not held to any, and may close the descriptor when it likes.
func TestReadinessDescriptorIsNoChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{
			MaxWorkers: 3, TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {Signal: usr1}},
			Readiness: prefork.Readiness{FD: 4, Timeout: 10 * time.Second}, Command: []string{"/bin/sh"},
		}, func(p *proctest.Process) {
			switch p.ID {
			case 1:
				p.Send([]byte("R\x00?\nE\x00\n"))
				p.CloseControl()
			case 2:
				p.CloseControl() // without a newline
			case 3:
				go func() {
					for range 100 {
						p.Send([]byte(strings.Repeat("busy ", 100)))
						time.Sleep(time.Millisecond)
					}
					p.Send([]byte("\n"))
				}()
			}
		}, nil)
		done := r.startRun(context.Background())
		time.Sleep(9 * time.Second)
		r.Pause()
		r.SignalAllChildren(usr1)
		r.SetLogLevel(slog.LevelDebug)
		time.Sleep(500 * time.Millisecond)
		r.wantSignals(1, usr1)
		r.wantSignals(2, usr1) // it is still starting, and no signal is held for it
		if ready, starting := r.states(prefork.StateReady), r.states(prefork.StateStarting); ready != 2 || starting != 1 {
			t.Errorf("%d Commands are ready and %d starting, want 2 and 1", ready, starting)
		}
		time.Sleep(time.Second)
		r.wantSignals(2, usr1, kill)
		r.Shutdown()
		r.process(2).Exit(proc.Status{Signal: kill})
		<-done
		for i := range 3 {
			if sent := r.process(i + 1).Written(); len(sent) > 0 {
				t.Errorf("Command %d was sent %q", i+1, sent)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !slices.ContainsFunc(r.exits, func(e prefork.Exit) bool { return e.Ordinal == 2 && e.Reason == prefork.ReasonReadyTimeout }) {
			t.Errorf("exits %v", r.exits)
		}
	})
}

// SetReady concerns Commands that are starting or ready, also from hooks.
func TestSetReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hook []bool
		r := newRig(t, prefork.Config{
			MaxWorkers: 1, Command: []string{"/bin/sh"}, Readiness: prefork.Readiness{Explicit: true},
			AfterSpawn:  func(m *prefork.Manager, pid int) { hook = append(hook, m.SetReady(pid)) },
			OnChildReap: func(m *prefork.Manager, e prefork.Exit) { hook = append(hook, m.SetReady(e.PID)) },
		}, func(*proctest.Process) {}, nil)
		done := r.startRun(context.Background())
		synctest.Wait()
		pid := r.process(1).Pid()
		if n := r.states(prefork.StateReady); n != 1 || !r.SetReady(pid) || r.SetReady(pid+1000) || r.SetReady(0) {
			t.Errorf("%d Commands are ready", n)
		}
		r.Shutdown()
		<-done
		if !slices.Equal(hook, []bool{true, false}) || r.SetReady(pid) {
			t.Errorf("in hooks: %v, want true at the start and false at the end", hook)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, Readiness: prefork.Readiness{Explicit: true}}, func(*proctest.Process) {}, nil)
		done := r.startRun(context.Background())
		synctest.Wait()
		if r.SetReady(r.process(1).Pid()) {
			t.Error("SetReady takes a worker of this program")
		}
		r.Shutdown()
		<-done
	})
}

func TestReadinessErrors(t *testing.T) {
	command := []string{"true"}
	for part, c := range map[string]struct {
		command   []string
		readiness prefork.Readiness
	}{
		"FD: it is for a Command": {nil, prefork.Readiness{FD: 3}},
		"Worker.Ready":            {nil, prefork.Readiness{After: time.Second}},
		"2 is a standard":         {command, prefork.Readiness{FD: 2}},
		"-1 is a standard":        {command, prefork.Readiness{FD: -1}},
		"is negative":             {command, prefork.Readiness{After: -time.Second}},
		"time.Second":             {command, prefork.Readiness{After: 5}},
		"one of Explicit":         {command, prefork.Readiness{FD: 3, After: time.Second}},
		"FD and After":            {command, prefork.Readiness{Explicit: true, FD: 3}},
		"SetReady works with":     {command, prefork.Readiness{Explicit: true, After: time.Second}},
	} {
		_, err := prefork.New(prefork.Config{Command: c.command, Readiness: c.readiness, Name: t.Name()})
		if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "Config.Readiness") {
			t.Errorf("%+v: %v, want %q", c.readiness, err, part)
		}
	}
}

// What is for a Command is refused for workers of this program: by New, or by the
// spawn.
func TestSpawnOfACommandAlone(t *testing.T) {
	for field, cfg := range map[string]prefork.Config{
		"Config.Dir: it is for":  {Dir: "/"},
		"Config.ListenStarter":   {ListenStarter: true},
		"Config.Dir":             {Dir: "/\x00", Command: []string{"true"}},
		"Command: it names no":   {Command: []string{""}},
		"Command: \"true\\x00\"": {Command: []string{"true\x00"}},
	} {
		cfg.Name = t.Name()
		if _, err := prefork.New(cfg); field[0] != 'C' && (err == nil || !strings.Contains(err.Error(), field)) || err == nil {
			t.Errorf("%s: %v", field, err)
		}
	}
	for want, test := range map[string]struct {
		command []string
		spawn   prefork.Spawn
	}{
		"Command, Path":      {nil, prefork.Spawn{Command: []string{"true"}}},
		"Path, Dir":          {nil, prefork.Spawn{Path: "/bin/true"}},
		"Dir and FilesAt":    {nil, prefork.Spawn{Dir: "/"}},
		"set Config.Command": {nil, prefork.Spawn{FilesAt: map[int]*os.File{}}},
		"names no program":   {[]string{"true"}, prefork.Spawn{Command: []string{}}},
		"zero byte":          {[]string{"true"}, prefork.Spawn{Command: []string{"true", "\x00"}}},
		"no/such/dir":        {[]string{"/bin/sh"}, prefork.Spawn{Command: []string{"./x"}, Dir: "/no/such/dir"}},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 1, Command: test.command, BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
					s.Command, s.Path, s.Dir, s.FilesAt = test.spawn.Command, test.spawn.Path, test.spawn.Dir, test.spawn.FilesAt
				}}, nil, nil)
				done := r.startRun(context.Background())
				synctest.Wait()
				if n := r.count(want); n != 1 {
					t.Errorf("%d events have %q: %q", n, want, r.eventLog())
				}
				r.Shutdown()
				<-done
			})
		})
	}
}

// A Command that is executed by a first step is starting until then. If the step
// fails, that is a failed spawn with the reason of a direct start.
func TestFirstStep(t *testing.T) {
	const slow = 3 * time.Second
	for name, readiness := range map[string]prefork.Readiness{
		"at once": {}, "After": {After: time.Second}, "FD": {FD: 9}, "Explicit": {Explicit: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failed wire.NotStarted
				killed := false
				r := newRig(t, prefork.Config{MaxWorkers: 1, TrapSignals: rollingHup, Readiness: readiness, Command: []string{"/bin/sh"}, ListenFDs: true}, func(p *proctest.Process) {
					time.AfterFunc(slow, func() {
						if killed {
							p.CloseControl()
							time.AfterFunc(boot, func() { p.Exit(proc.Status{Code: -1, Signal: syscall.SIGKILL}) })
							return
						}
						p.Send(wire.Append(nil, wire.Executing{}))
						if failed.Errno == 0 {
							p.CloseControl()
							return
						}
						p.Send(wire.Append(nil, failed))
						p.Exit(proc.Status{Code: 127})
					})
				}, nil)
				done := r.startRun(context.Background())
				time.Sleep(slow - boot)
				if n := r.states(prefork.StateStarting); n != 1 {
					t.Errorf("%d Commands are starting in the step, want 1", n)
				}
				time.Sleep(2*boot + readiness.After)
				if readiness.FD != 0 || readiness.Explicit {
					if n := r.states(prefork.StateStarting); n != 1 {
						t.Errorf("%d Commands are starting after the step, want 1", n)
					}
					r.SetReady(r.process(1).Pid())
				}
				time.Sleep(time.Minute)
				if n := r.states(prefork.StateReady); n != 1 {
					t.Errorf("%d Commands are ready, want 1", n)
				}
				failed.Errno = byte(syscall.ENOENT)
				reloaded := r.reload(prefork.Forward{})
				time.Sleep(slow + boot)
				answered(t, "after a file that is not there", reloaded, 2, "cannot spawn a worker for slot 0: fork/exec /bin/sh: no such file or directory")
				failed = wire.NotStarted{Errno: byte(syscall.EPERM), Reason: "Nice: not permitted"}
				reloaded = r.reload(prefork.Forward{})
				time.Sleep(slow + boot)
				answered(t, "after a resource that fails", reloaded, 3, "cannot spawn a worker for slot 0: Nice: not permitted")
				if n := countEvents[prefork.SpawnFailedEvent](r); n != 2 {
					t.Errorf("%d failed spawns, want 2: %q", n, r.eventLog())
				}
				killed = true
				reloaded = r.reload(prefork.Forward{})
				time.Sleep(slow + boot/2)
				if n := r.states(prefork.StateReady); n != 1 { // the one of before
					t.Errorf("%d Commands are ready after a step that was killed, want 1: %q", n, r.eventLog())
				}
				time.Sleep(boot)
				answered(t, "after a step that was killed", reloaded, 4, "crashed: ")
				r.Shutdown()
				<-done
			})
		})
	}
}

// A worker of this program cannot report that it was not started.
func TestNotStartedIsForCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, CrashLoop: prefork.CrashLoop{Failures: -1}}, func(p *proctest.Process) {
			time.AfterFunc(boot, func() {
				p.Send(wire.Append(nil, wire.NotStarted{Errno: 2}))
				p.Exit(proc.Status{Code: 127})
			})
		}, nil)
		done := r.startLoop()
		time.Sleep(2 * boot)
		r.Deliver(term)
		<-done
		if n := countEvents[prefork.SpawnFailedEvent](r); n != 0 || len(r.exits) == 0 {
			t.Errorf("%d failed spawns, want none: %q", n, r.eventLog())
		}
	})
}
