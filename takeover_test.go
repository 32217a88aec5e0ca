//go:build unix

package prefork

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
	"golang.org/x/sys/unix"
)

// What has come for a Manager while its successor is on its way, by the time that the successor is ready.
func TestWhatWaitsAtTheTakeover(t *testing.T) {
	for _, c := range []struct {
		name      string
		delivered []syscall.Signal
		passed    []syscall.Signal // to the successor
		took      bool
	}{
		{"a shutdown", []syscall.Signal{hup, term}, []syscall.Signal{term}, false},
		{"the next upgrade", []syscall.Signal{usr2, hup}, []syscall.Signal{usr2, hup}, true},
		{"what the table does not name", []syscall.Signal{syscall.SIGQUIT, hup}, []syscall.Signal{hup}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				upgrades := 0
				r = successorRig(t, Config{Observe: func(ev Event) {
					if _, ok := ev.(UpgradeEvent); ok && upgrades == 0 { // in the loop, so that the successor's word is read later
						upgrades++
						for _, sig := range c.delivered {
							r.Deliver(sig)
						}
					}
				}}, func(p *proc.FakeProcess) { say(p, wire.Reached{}) })
				done := r.startRun(context.Background())
				time.Sleep(time.Second)
				r.Deliver(usr2)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := r.count("has taken over") == 1; took != c.took {
					t.Errorf("the successor took over: %v, want %v: %q", took, c.took, r.eventLog())
				}
				if got := signalsOf(r.successorProcesses()[0]); !slices.Equal(got, c.passed) {
					t.Errorf("the successor was sent %v, want %v", got, c.passed)
				}
			})
		})
	}
}

// A shutdown that comes in the very moment of the takeover is the successor's, too; the end of Run's context is not.
func TestShutdownInTheTakeover(t *testing.T) {
	for name, ctx := range map[string]bool{"signal": false, "context": true} {
		t.Run(name, func(t *testing.T) {
			r := successorRig(t, Config{}, nil)
			p, err := r.fake.Start(firstSuccessor, proc.Spec{Control: 3})
			if err != nil {
				t.Fatal(err)
			}
			r.successor = &successor{proc: p}
			r.inbox.put(func(in *inbox) { in.signals.add(arrival{sig: term, ctx: ctx}) })
			r.handOver(r.successor)
			if got := signalsOf(r.fake.Started()[0]); slices.Contains(got, term) == ctx || !r.shutdownWaits() {
				t.Errorf("the successor was sent %v, and the Manager itself ends: %v", got, r.shutdownWaits())
			}
		})
	}
}

// late is a successor whose word that it is ready is there before the news that there is something to read.
type late struct {
	proc.Process
	said []byte
}

func (l *late) Read(p []byte) (int, error) {
	if len(l.said) == 0 {
		return 0, proc.ErrWouldBlock
	}
	n := copy(p, l.said)
	l.said = l.said[n:]
	return n, nil
}

// A successor that was ready while the Manager was held up takes over, though its time is over by then.
func TestSuccessorOfAManagerHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		r = successorRig(t, Config{UpgradeTimeout: time.Second, Observe: func(ev Event) {
			if _, ok := ev.(UpgradeEvent); ok {
				r.successor.proc = &late{r.successor.proc, wire.Append(nil, wire.Reached{})}
			}
		}}, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(usr2)
		time.Sleep(2 * time.Second)
		if r.count("has taken over") != 1 {
			t.Errorf("%q", r.eventLog())
			r.Deliver(term)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A Manager that gives up while it upgrades says so at the end.
func TestCrashLoopInAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, Config{ErrRespawnInterval: -1, CrashLoop: CrashLoop{Failures: 2}}, nil)
		go func() { time.Sleep(time.Minute); r.Deliver(usr1) }()
		r.Start()
		go func() {
			time.Sleep(time.Second)
			r.process(1).Exit(proc.Status{Code: 1})
			r.process(2).Exit(proc.Status{Code: 1})
		}()
		if err := r.Upgrade(context.Background()); !errors.Is(err, errShutdown) {
			t.Errorf("Upgrade: %v", err)
		}
		for r.SignalReceived() != term {
			r.Start()
		}
		if _, err := r.WaitAllChildren(context.Background()); !errors.Is(err, ErrCrashLoop) {
			t.Errorf("WaitAllChildren: %v, want ErrCrashLoop", err)
		}
		r.Deliver(term) // what comes after that is another matter
		r.Start()
		if _, err := r.WaitAllChildren(context.Background()); err != nil {
			t.Errorf("WaitAllChildren again: %v", err)
		}
	})
}

// Whether a socket blocks is for the successor to say once it has taken over: the Manager before it makes it as it was only where the successor
// has failed.
func TestSocketsOfTheSuccessor(t *testing.T) {
	for _, fails := range []bool{false, true} {
		var r *rig
		blocks := func() bool {
			flags, err := unix.FcntlInt(uintptr(r.sockets[0].fd), unix.F_GETFL, 0)
			if err != nil {
				t.Fatal(err)
			}
			return flags&unix.O_NONBLOCK == 0
		}
		synctest.Test(t, func(t *testing.T) {
			r = successorRig(t, Config{}, func(p *proc.FakeProcess) {
				inherit.SetBlocking(r.sockets[0].fd, true)
				if fails {
					say(p, wire.Failed{Why: "so it is"})
				} else {
					say(p, wire.Reached{})
				}
			})
			ln, err := r.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			done := r.startRun(context.Background())
			time.Sleep(time.Second)
			r.Deliver(usr2)
			time.Sleep(time.Second)
			if blocks() == fails {
				t.Errorf("the successor has failed: %v, and its socket blocks: %v", fails, blocks())
			}
			r.Deliver(term)
			<-done
		})
	}
}

// A context that ends in the very moment in which Run does, does not end what comes after it.
func TestContextEndsAsRunDoes(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r := newRig(t, Config{MaxWorkers: 1, OnChildReap: func(*Manager, Exit) { cancel() }}, nil, nil)
			done := r.startRun(ctx)
			time.Sleep(time.Second)
			r.Deliver(term)
			<-done
			synctest.Wait()
			if a, ok := r.takeSignal(); ok {
				t.Errorf("%v is left, by the context: %v", a.sig, a.ctx)
			}
		})
	}
}

// Workers that become ready while the Manager is held up by a hook are not killed for being late.
func TestReadyWhileReloading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reload := time.Duration(0)
		r := newRig(t, Config{MaxWorkers: 3, Readiness: Readiness{Timeout: 2 * time.Second}, TrapSignals: hupAndTerm,
			Reload: func() ([]byte, error) { time.Sleep(reload); return nil, nil },
		}, func(p *proc.FakeProcess) {
			time.AfterFunc(time.Second, func() { say(p, wire.Reached{}) })
		}, func(p *proc.FakeProcess, sig syscall.Signal) {
			time.AfterFunc(time.Second, func() { endOnTerm(p, sig) })
		})
		done := r.startRun(context.Background())
		synctest.Wait()
		reload = 3 * time.Second
		r.Deliver(hup)
		time.Sleep(time.Minute)
		for i := range 3 {
			r.wantSignals(i+1, term)
		}
		if n := r.count("killed"); n > 0 {
			t.Errorf("%d workers were killed: %q", n, r.eventLog())
		}
		r.Deliver(term)
		<-done
	})
}

// deaf is a worker that reads nothing.
type deaf struct{ proc.Process }

func (deaf) Write([]byte) (int, error) { return 0, proc.ErrWouldBlock }

// A worker that says again and again that it has paused, and does not read what it is told of that, does not fill the log.
func TestDeafWorkerAndTheLog(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		r = newRig(t, Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)), Observe: func(ev Event) {
			if ev, ok := ev.(StateEvent); ok && ev.Worker.State == StateReady {
				c := r.children[ev.Worker.Ordinal]
				c.proc = deaf{c.proc}
			}
		}}, nil, nil)
		done := r.startAgain()
		time.Sleep(time.Second)
		for range 100 {
			say(r.process(1), wire.Paused{N: 7})
		}
		time.Sleep(time.Minute)
		r.Deliver(term)
		<-done
	})
	if n := strings.Count(log.String(), "cannot be told to pause"); n != 1 {
		t.Errorf("the log says %d times that it cannot be told", n)
	}
}
