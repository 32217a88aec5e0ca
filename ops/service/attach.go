package service

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Attach puts a Manager under the service, until detach is called, which is to be when Run or WaitAllChildren has
// returned:
//
//	pm, err := prefork.New(…)
//	…
//	detach, err := svc.Attach(pm)
//	if err != nil { log.Fatal(err) }
//	defer detach()
//	… pm.Listen, pm.Run …
//
// Attach takes the service's name, and fails as Begin does where that is not to be had or the stopped flag is set. From then
// on the stopped flag is a Manager.Shutdown, and while the paused flag is set the Manager is paused, also from its first
// worker on: see Manager.Pause for what workers do about it. The Manager's table says which signals are trapped;
// TrapSignals must be empty.
//
// The successor of an upgrade inherits the name: at no time is it free, and the pid file names the successor when it has taken over.
//
// Where LockTimeout has it wait for the name, SIGTERM and Ctrl-C end the wait with an error, whatever the table says.
//
// Attach belongs behind New and before Listen, so that a program which is started twice says that it is running, and not that
// its address is in use. In a worker it does nothing, so it may stand where both pass.
func (s *Service) Attach(pm *prefork.Manager) (detach func() error, err error) {
	if prefork.IsWorker() {
		return func() error { return nil }, nil
	}
	if len(s.TrapSignals) > 0 {
		return nil, s.wrap(errors.New("TrapSignals must be empty for a Manager, whose own table says what it traps"))
	}
	lock, w, err := s.inheritOrTake()
	if err != nil {
		return nil, err
	}
	a := &attached{s: s, pm: pm, lock: lock, stop: make(chan struct{})}
	a.look()
	a.tend.Go(func() { a.mind(w) })
	return sync.OnceValue(a.detach), nil
}

// passedFile is the name under which a successor inherits the pid file.
func (s *Service) passedFile() string { return "service " + s.PIDFile }

// takeUnlessTold takes the name, and waits for it as LockTimeout says, or until the process is told to stop: the Manager traps the
// signals for that, and looks at them only in Run.
func (s *Service) takeUnlessTold() (*hold, *watcher, error) {
	stops := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) {
		stops = append(stops, os.Interrupt)
	}
	ctx, release := signal.NotifyContext(context.Background(), stops...)
	defer release()
	return s.take(ctx)
}

// inheritOrTake takes the name, which a successor has already.
func (s *Service) inheritOrTake() (*hold, *watcher, error) {
	f := prefork.PassedFile(s.passedFile())
	if f == nil {
		lock, w, err := s.takeUnlessTold()
		if err == nil {
			prefork.PassFile(s.passedFile(), lock.file.File())
		}
		return lock, w, err
	}
	file, err := pidfile.Adopt(s.PIDFile, f)
	if err != nil {
		f.Close()
		return nil, nil, s.wrap(err)
	}
	if s.Stopped() {
		return nil, nil, errors.Join(s.wrap(ErrStopped), file.Close())
	}
	prefork.PassFile(s.passedFile(), f)
	return &hold{s: s, file: file, before: pidfile.Read(s.PIDFile)}, s.watch(), nil
}

// attached is a Manager under a service.
type attached struct {
	s     *Service
	pm    *prefork.Manager
	lock  *hold
	tend  sync.WaitGroup
	stop  chan struct{}
	again <-chan time.Time // the name is to be taken when the manager before this one has ended
	lost  bool
	told  bool // the Manager was told to shut down
}

// mind does what the flags say.
func (a *attached) mind(w *watcher) {
	defer w.close()
	var beat <-chan time.Time
	if a.s.Heartbeat > 0 {
		ticker := time.NewTicker(a.s.Heartbeat)
		defer ticker.Stop()
		beat = ticker.C
	}
	tookOver := prefork.TookOver()
	for {
		select {
		case <-tookOver:
			tookOver = nil
			if err := a.lock.name(); err != nil {
				a.s.log().Error("the pid file cannot be written", "err", err)
			}
			a.look()
		case <-beat:
			if rules() { // or it would hide that the other one hangs
				a.lock.beat(0)
			}
		case <-w.changed:
			a.look()
		case <-a.again:
			a.look()
		case <-a.stop:
			return
		}
	}
}

// look looks at the files. What they say after a successor has taken over is for the successor.
func (a *attached) look() {
	if prefork.HandedOver() {
		return
	}
	if a.s.Paused() {
		a.pm.Pause()
	} else {
		a.pm.Resume()
	}
	if rules() && !a.lost {
		if err := a.lock.keep(); errors.Is(err, errBefore) {
			a.again = time.After(pollInterval)
		} else if err != nil {
			a.s.log().Error("the service ends", "err", err)
			a.lost = true
		} else {
			prefork.PassFile(a.s.passedFile(), a.lock.open())
		}
	}
	if (a.lost || a.s.Stopped()) && !a.told {
		a.told = true
		a.pm.Shutdown()
	}
}

// rules tells whether the service is this process's alone: not before a successor has taken over, and not after another has.
func rules() bool {
	select {
	case <-prefork.TookOver():
		return !prefork.HandedOver()
	default:
		return false
	}
}

func (a *attached) detach() error {
	close(a.stop)
	a.tend.Wait()
	prefork.PassFile(a.s.passedFile(), nil)
	err := a.lock.leave(rules())
	if a.lost {
		err = errors.Join(ErrLost, err)
	}
	return a.s.wrap(err)
}
