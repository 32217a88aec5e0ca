//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// Signals that arrive before the successor is ready are forwarded to it at the
// takeover.
func TestPendingSignalsAtTakeover(t *testing.T) {
	for _, c := range []struct {
		name      string
		delivered []syscall.Signal
		passed    []syscall.Signal // by the successor
		took      bool
	}{
		{"a shutdown", []syscall.Signal{hup, term}, []syscall.Signal{term}, false},
		{"the next upgrade", []syscall.Signal{usr2, hup}, []syscall.Signal{usr2, hup}, true},
		{"what the table does not name", []syscall.Signal{syscall.SIGQUIT, hup}, []syscall.Signal{hup}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			alone(t, func(t *testing.T) {
				var r *rig
				upgrades := 0
				r = successorRig(t, prefork.Config{Observe: func(ev prefork.Event) {
					// in the loop, so that the successor's message is read later
					if _, ok := ev.(prefork.UpgradeEvent); ok && upgrades == 0 {
						upgrades++
						for _, sig := range c.delivered {
							r.Deliver(sig)
						}
					}
				}}, func(p *proctest.Process) { send(p, wire.Ready{}) })
				done := r.startRun(context.Background())
				time.Sleep(time.Second)
				r.Deliver(usr2)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := r.count("has taken over") == 1; took != c.took {
					t.Errorf("the successor took over: %v, want %v: %q", took, c.took, r.eventLog())
				}
				if got := signalsOf(r.successors()[0]); !slices.Equal(got, c.passed) {
					t.Errorf("the successor received %v, want %v", got, c.passed)
				}
			})
		})
	}
}

// A shutdown signal that arrives at the moment of the takeover reaches the
// successor, too. The end of Run's context does not.
func TestShutdownDuringTakeover(t *testing.T) {
	for _, byContext := range []bool{false, true} {
		t.Run(map[bool]string{false: "signal", true: "context"}[byContext], func(t *testing.T) {
			alone(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var r *rig
				r = successorRigWith(t, prefork.Config{}, func(p *proctest.Process) { send(p, wire.Ready{}) }, options{
					wrap: func(p *proctest.Process) proc.Process {
						if !isSuccessor(t, p) {
							return nil
						}
						return &onWrite{p, func() {
							if byContext {
								cancel()
								// For the goroutine that waits for the end of ctx.
								time.Sleep(time.Nanosecond)
							} else {
								r.Deliver(term)
							}
						}}
					},
				})
				done := r.startRun(ctx)
				time.Sleep(time.Second)
				r.Deliver(usr2)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if countEvents[prefork.UpgradedEvent](r) != 1 {
					t.Errorf("no takeover: %q", r.eventLog())
				}
				if got := signalsOf(r.successors()[0]); slices.Contains(got, term) == byContext {
					t.Errorf("the successor received %v", got)
				}
			})
		})
	}
}

// A Manager that is started again after its successor took over is one warning. It
// is none while the takeover's own shutdown signal waits: that ends Start at once.
func TestStartAfterTakeover(t *testing.T) {
	alone(t, func(t *testing.T) {
		var log bytes.Buffer
		r := successorRig(t, prefork.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(p *proctest.Process) { send(p, wire.Ready{}) })
		warnings := func(when string, want int) {
			t.Helper()
			if n := strings.Count(log.String(), "started again after its successor took over"); n != want {
				t.Errorf("%s: %d warnings, want %d:\n%s", when, n, want, &log)
			}
		}
		time.AfterFunc(time.Second, func() { r.Deliver(usr1) })
		r.Start()
		if err := r.Upgrade(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Start()
		if r.SignalReceived() != term {
			t.Errorf("Start ended with %v", r.SignalReceived())
		}
		warnings("the takeover's own signal", 0)
		for range 2 {
			time.AfterFunc(time.Second, func() { r.Deliver(term) })
			r.Start()
		}
		warnings("started twice again", 1)
		if left, err := r.WaitAllChildren(t.Context()); left != 0 || err != nil {
			t.Error(left, err)
		}
	})
}

// onWrite is a process that calls a function before each message that the
// Manager writes to it.
type onWrite struct {
	*proctest.Process
	happen func()
}

func (p *onWrite) Write(b []byte) (int, error) {
	p.happen()
	return p.Process.Write(b)
}

// late is a successor whose message can be read before the Readable note.
type late struct {
	*proctest.Process
	unread []byte
}

func (l *late) Read(p []byte) (int, error) {
	if len(l.unread) == 0 {
		return 0, proc.ErrWouldBlock
	}
	n := copy(p, l.unread)
	l.unread = l.unread[n:]
	return n, nil
}

// A successor that became ready while the manager was suspended takes over,
// even if UpgradeTimeout has passed.
func TestSuccessorOfSuspendedManager(t *testing.T) {
	alone(t, func(t *testing.T) {
		r := successorRigWith(t, prefork.Config{UpgradeTimeout: time.Second}, nil, options{wrap: func(p *proctest.Process) proc.Process {
			if !isSuccessor(t, p) {
				return nil
			}
			return &late{p, wire.Append(nil, wire.Ready{})}
		}})
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

// A crash loop during an upgrade is reported at the end.
func TestCrashLoopInAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := successorRig(t, prefork.Config{ErrRespawnInterval: -1, CrashLoop: prefork.CrashLoop{Failures: 2}}, nil)
		go func() { time.Sleep(time.Minute); r.Deliver(usr1) }()
		r.Start()
		go func() {
			time.Sleep(time.Second)
			r.process(1).Exit(proc.Status{Code: 1})
			r.process(2).Exit(proc.Status{Code: 1})
		}()
		if err := r.Upgrade(context.Background()); err == nil || !strings.Contains(err.Error(), "shutdown") {
			t.Errorf("Upgrade: %v", err)
		}
		for r.SignalReceived() != term {
			r.Start()
		}
		if _, err := r.WaitAllChildren(context.Background()); !errors.Is(err, prefork.ErrCrashLoop) {
			t.Errorf("WaitAllChildren: %v, want ErrCrashLoop", err)
		}
		r.Deliver(term) // WaitAllChildren reports it once
		r.Start()
		if _, err := r.WaitAllChildren(context.Background()); err != nil {
			t.Errorf("WaitAllChildren again: %v", err)
		}
	})
}

// The successor decides whether a shared socket blocks. The manager restores
// the mode only if the successor has failed.
func TestSocketsOfTheSuccessor(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails ", fails), func(t *testing.T) {
			alone(t, func(t *testing.T) {
				r := successorRig(t, prefork.Config{}, func(p *proctest.Process) {
					m, _ := successorMarker(t, p)
					fd.SetBlocking(int(p.Spec.Files[m.Sockets[0].FD]), true)
					if fails {
						send(p, wire.Failed{Reason: "so it is"})
					} else {
						send(p, wire.Ready{})
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
				if blocks := !isNonblocking(t, ln); blocks == fails {
					t.Errorf("the socket blocks: %v", blocks)
				}
				r.Deliver(term)
				<-done
			})
		})
	}
}

// A context that ends at the same moment as Run does not end the next Start.
func TestContextEndsAsRunDoes(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r := newRig(t, prefork.Config{MaxWorkers: 1, OnChildReap: func(*prefork.Manager, prefork.Exit) { cancel() }}, nil, nil)
			done := r.startRun(ctx)
			time.Sleep(time.Second)
			r.Deliver(term)
			<-done
			synctest.Wait()
			r.wantNextStartRuns()
		})
	}
}

// A hook delays the manager. Workers that become ready in the meantime are not
// killed for a ReadyTimeout.
func TestReadyWhileReloading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reload := time.Duration(0)
		r := newRig(t, prefork.Config{MaxWorkers: 3, Readiness: prefork.Readiness{Timeout: 2 * time.Second}, TrapSignals: hupAndTerm,
			Reload: func() ([]byte, error) { time.Sleep(reload); return nil, nil },
		}, func(p *proctest.Process) {
			time.AfterFunc(time.Second, func() { send(p, wire.Ready{}) })
		}, func(p *proctest.Process, sig syscall.Signal) {
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

// A worker that confirms a pause repeatedly and reads nothing does not fill the
// log.
func TestWorkerThatReadsNothing(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, prefork.Config{MaxWorkers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))},
			options{wrap: func(p *proctest.Process) proc.Process { return deaf{p} }})
		done := r.startLoop()
		time.Sleep(time.Second)
		for range 100 {
			send(r.process(1), wire.Paused{N: 7})
		}
		time.Sleep(time.Minute)
		r.Deliver(term)
		<-done
	})
	if n := strings.Count(log.String(), "cannot send pause or resume"); n != 1 {
		t.Errorf("the log has it %d times", n)
	}
}
