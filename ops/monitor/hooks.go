//go:build unix

package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/safedir"
	"github.com/prefork-go/prefork/ops/monitor/internal/machine"
	"github.com/prefork-go/prefork/ops/supervise"
)

// The hooks of a unit's Manager.

func (u *unit) beforeSpawn(pm *prefork.Manager, sp *prefork.Spawn) {
	if sp.Slot >= len(u.slots) { // a caller of Config.Attach has scaled the Manager
		pm.Hold(sp.Slot)
		return
	}
	s := u.slots[sp.Slot]
	var set settings
	u.awaitStart(func() {
		set = u.settings()
		if u.kind == Service {
			u.find("u")
		}
		u.dropLock() // of a start that has failed
		if set.lockFD != 0 && set.err == nil {
			set.err = u.takeLock(s)
		}
	})
	if !u.tryStart(pm, set, s, sp) {
		u.dropLock()
	}
}

func (u *unit) tryStart(pm *prefork.Manager, set settings, s *slot, sp *prefork.Spawn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	start := u.mayStart(pm, set, s, sp)
	if !start {
		pm.Hold(sp.Slot)
	}
	return start
}

// mayStart reports whether run may start now, and completes sp for it.
func (u *unit) mayStart(pm *prefork.Manager, set settings, s *slot, sp *prefork.Spawn) bool {
	if u.pm != pm { // it is ending
		return false
	}
	if s.Starting() { // the last start has failed, for a reason that passes soon
		u.startFailed(s)
	}
	u.load(set)
	if u.renew() {
		return false
	}
	if err := u.obstacle(); err != nil {
		u.block(s, err)
		return false
	}
	if !u.apply(s, machine.Event{Kind: machine.Due}) {
		return false
	}
	s.ordinal, s.ready = sp.Ordinal, false
	u.starting = s
	u.complete(s, sp)
	return true
}

// renew ends the Manager if it has read other settings and nothing runs.
func (u *unit) renew() bool {
	if reflect.DeepEqual(u.set.managed, u.using) {
		return false
	}
	for _, s := range u.slots {
		if s.Status().State == supervise.Run || s.Starting() {
			return false
		}
	}
	u.pm.Shutdown()
	u.pm = nil // commands from now on are for the next one
	return true
}

// obstacle returns why run must not start now.
func (u *unit) obstacle() error {
	if u.set.err == nil && u.refused != nil && reflect.DeepEqual(u.set.managed, u.using) {
		return u.refused
	}
	return u.set.err
}

// takeLock locks the file of lock-fd for the processes of the next run. The lock is
// held as long as one of them has the descriptor.
func (u *unit) takeLock(s *slot) error {
	name := "service-lock"
	if s.index > 0 {
		name += "-" + strconv.Itoa(s.index)
	}
	// supervise may belong to a user who may only control the service, so no link
	// of his leads to another file.
	dir, err := safedir.Hold(filepath.Join(u.dir, "supervise"))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	lock := func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	err = lock()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		// A process of any service that is being started has the descriptor of the
		// last run until its exec.
		syscall.ForkLock.RLock()
		err = lock()
		syscall.ForkLock.RUnlock()
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("a process of its last run holds %s: end that first", f.Name())
		}
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	u.lock = f
	return nil
}

// dropLock leaves the lock to the processes that have inherited it.
func (u *unit) dropLock() {
	u.lock.Close() // nil is allowed
	u.lock = nil
}

const (
	firstRetry   = time.Second
	longestRetry = time.Minute
)

// block keeps a service from starting, and tries again later. A command u or o tries
// at once.
func (u *unit) block(s *slot, err error) {
	u.setProblem(err)
	u.apply(s, machine.Event{Kind: machine.Blocked})
	u.delay = min(max(2*u.delay, firstRetry), longestRetry)
	u.retry = time.AfterFunc(u.delay, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.apply(s, machine.Event{Kind: machine.Unblocked})
	})
}

// setProblem notes why a service cannot be started. The log has each reason once.
func (u *unit) setProblem(err error) {
	if text := err.Error(); text != u.problem {
		u.problem = text
		u.log.Error("cannot start the service", "err", err)
	}
}

// complete adds to a spawn the things that Config has not.
func (u *unit) complete(s *slot, sp *prefork.Spawn) {
	sp.Stdin = u.mon.null
	if f := u.mon.cfg.Output; f != nil {
		s.started, s.output = f(u.name, sp)
	}
	switch {
	case u.pipe == nil:
	case u.kind == Logger:
		sp.Stdin = u.pipe.r
	default:
		sp.Stdout = u.pipe.w
	}
	sp.Env = append(sp.Env, u.set.env...)
	sp.Unset = append(sp.Unset, u.unset()...)
	if u.set.session || u.set.newPIDs {
		sp.Attr = &syscall.SysProcAttr{Setsid: u.set.session}
	}
	if u.set.newPIDs {
		setNewPIDs(sp.Attr)
	}
	if u.lock != nil {
		sp.FilesAt = map[int]*os.File{u.set.lockFD: u.lock}
	}
}

// unset returns the variables that run, finish and control scripts do not get. There
// are no sockets, and what systemd says of the program that it has started holds for
// that program only.
func (u *unit) unset() []string {
	return append([]string{
		"SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID",
	}, u.set.unset...)
}

func (u *unit) afterSpawn(_ *prefork.Manager, pid int) {
	u.dropLock()
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.starting
	u.endOutput(s, pid)
	u.problem, u.delay = "", 0
	u.apply(s, machine.Event{Kind: machine.Started, ID: s.ordinal, PID: pid})
}

// startFailed notes that the start of a slot has failed.
func (u *unit) startFailed(s *slot) {
	u.endOutput(s, 0)
	u.apply(s, machine.Event{Kind: machine.Failed})
}

// endOutput calls the function that Config.Output has returned.
func (u *unit) endOutput(s *slot, pid int) {
	if s.started != nil {
		s.started(pid)
	}
	s.started = nil
	if pid == 0 {
		s.output = nil
	}
}

func (u *unit) onReap(_ *prefork.Manager, e prefork.Exit) {
	finish := false
	if u.dir != "" {
		var err error
		u.await(func() { finish, err = u.mon.disk.isExecutable(filepath.Join(u.dir, "finish")) })
		finish = finish || err != nil // its start reports why
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.slots[e.Slot]
	s.exit, s.ready = e, false
	if s.output != nil {
		s.output(e)
		s.output = nil
	}
	u.count(Death{time.Now(), e.Status})
	ev := machine.Event{Kind: machine.Exited, ID: e.Ordinal, Finish: finish}
	switch u.set.restart {
	case prefork.RestartNever:
		ev.Last = true
	case prefork.RestartOnFailure:
		ev.Last = e.Reason == prefork.ReasonFinished
	}
	ev.Again = u.kind == Logger && u.pipe.again()
	u.apply(s, ev)
}

// observe follows the events that have no hook of their own.
func (u *unit) observe(ev prefork.Event) {
	defer u.mon.changes.notify()
	if _, failed := ev.(prefork.SpawnFailedEvent); failed {
		u.dropLock()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch ev := ev.(type) {
	case prefork.SpawnFailedEvent:
		u.problem = ev.Err.Err.Error() // the log has it
		if s := u.slots[ev.Err.Slot]; s.Starting() {
			u.startFailed(s)
		}
	case prefork.LeftoverEvent:
		kind := machine.LeftGone
		if ev.State == prefork.StateStopping {
			kind = machine.Left
		}
		// Those that are never killed must not keep the service from starting.
		if u.using.killAfter >= 0 {
			u.apply(u.slots[ev.Worker.Slot], machine.Event{Kind: kind})
		}
	case prefork.StateEvent:
		s, w := u.slots[ev.Worker.Slot], ev.Worker
		switch {
		case w.State == prefork.StateReady:
			s.ready = true
		case w.State == prefork.StateKilled && ev.Reason == prefork.ReasonStopTimeout && u.set.killGroup:
			// It was not waited for, so the number cannot belong to another group.
			syscall.Kill(-w.PID, syscall.SIGKILL)
		}
	}
}
