//go:build unix

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

// uncomparable is an error that cannot be compared by ==.
type uncomparable []error

func (uncomparable) Error() string     { return "several" }
func (u uncomparable) Unwrap() []error { return u }

// Run and WaitAllChildren return the first error of ShutdownWith as it is, once.
func TestShutdownWith(t *testing.T) {
	first := uncomparable{fmt.Errorf("no model: %w", fs.ErrNotExist)}
	for _, run := range []bool{true, false} {
		t.Run(fmt.Sprint("Run ", run), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 2, OnChildReap: func(m *prefork.Manager, e prefork.Exit) {
					if e.Status.Code == 3 {
						m.ShutdownWith(first)
						m.ShutdownWith(uncomparable{errors.New("another")})
					}
					m.ShutdownWith(errors.New("late")) // while the other worker stops
				}}, nil, func(p *proctest.Process, sig syscall.Signal) {
					time.AfterFunc(time.Second, func() { endOnTerm(p, sig) })
				})
				end := func() error {
					if run {
						return r.Run(context.Background(), noWork)
					}
					for r.SignalReceived() != term {
						r.Start()
					}
					left, err := r.WaitAllChildren(context.Background())
					if left != 0 {
						t.Errorf("%d workers are left", left)
					}
					return err
				}
				time.AfterFunc(time.Minute, func() { r.process(1).Exit(proc.Status{Code: 3}) })
				if err := end(); !errors.Is(err, fs.ErrNotExist) || err.Error() != "several" {
					t.Errorf("%v, want the error of the first call", err)
				}
				r.wantSignals(2, term)
				if n := r.count("shutdown (several), SIGTERM sent to the workers"); n != 1 || countEvents[prefork.SignalEvent](r) != 1 {
					t.Errorf("%q", r.eventLog())
				}
				r.Shutdown()
				if err := r.Run(context.Background(), noWork); err != nil {
					t.Errorf("the next Run: %v", err)
				}
			})
		})
	}
}

// An error that was set before Run, or between two calls, is not lost, and a nil
// one is no error.
func TestShutdownWithBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, nil)
		why := errors.New("why")
		r.ShutdownWith(why)
		if err := r.Run(context.Background(), noWork); err != why {
			t.Errorf("Run: %v", err)
		}
		r.ShutdownWith(why)
		r.Start()
		r.Shutdown() // SignalReceived was seen, and the program goes on all the same
		r.Start()
		if _, err := r.WaitAllChildren(context.Background()); err != nil {
			t.Errorf("WaitAllChildren: %v, want no error of a shutdown that is over", err)
		}
		r.ShutdownWith(nil)
		if err := r.Run(context.Background(), noWork); err != nil {
			t.Errorf("Run after ShutdownWith(nil): %v", err)
		}
	})
}

// A WaitAllChildren whose context ends leaves the error to the next one.
func TestShutdownWithAndContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1}, nil, func(p *proctest.Process, sig syscall.Signal) {
			time.AfterFunc(time.Minute/4, func() { endOnTerm(p, sig) })
		})
		why := errors.New("why")
		time.AfterFunc(time.Second, func() { r.ShutdownWith(why) })
		r.Start()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if left, err := r.WaitAllChildren(ctx); left != 1 || err != context.DeadlineExceeded {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != why {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
	})
}

// A worker shuts the pool down, with a code and a message, if the pool allows it.
func TestWorkerShutsDown(t *testing.T) {
	long := strings.Repeat("é", 200)
	for _, c := range []struct {
		name string
		send []wire.Shutdown
		deny bool
		exit bool // right after its message
		want *prefork.WorkerError
		log  string
	}{
		{name: "code 3", send: []wire.Shutdown{{Code: 3, Message: "no model"}}, want: &prefork.WorkerError{Code: 3, Message: "no model"},
			log: `level=ERROR msg="shutdown requested by worker" pool=NAME slot=0 gen=1 pid=1073741825 code=3 message="no model"`},
		{name: "and it exits", send: []wire.Shutdown{{Code: 3}}, exit: true, want: &prefork.WorkerError{Code: 3}, log: `code=3 message=""`},
		{name: "code 0", send: []wire.Shutdown{{Message: "all done"}},
			log: `level=INFO msg="shutdown requested by worker" pool=NAME slot=0 gen=1 pid=1073741825 code=0 message="all done"`},
		{name: "again and again", send: slices.Repeat([]wire.Shutdown{{Code: 255}, {Code: 7}}, 1000), want: &prefork.WorkerError{Code: 255}, log: `code=255`},
		{name: "long, and more than one line", send: []wire.Shutdown{{Code: 1, Message: "a\nlevel=INFO\x1b[2J\xff" + long}},
			want: &prefork.WorkerError{Code: 1, Message: "a level=INFO [2J\ufffd" + long[:236] + "\ufffd"}, log: `code=1`},
		{name: "not allowed", send: slices.Repeat([]wire.Shutdown{{Code: 3, Message: "no model"}}, 1000), deny: true,
			log: `level=ERROR msg="shutdown requested by worker, ignoring it: set Config.WorkerShutdown to allow it" pool=NAME slot=0 gen=1 pid=1073741825 code=3 message="no model"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			var name string
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 2, WorkerShutdown: !c.deny, ErrRespawnInterval: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, nil)
				name = r.name
				done := r.startRun(context.Background())
				time.Sleep(time.Minute)
				p := r.process(1)
				for _, msg := range c.send {
					send(p, msg)
				}
				if c.exit {
					p.Exit(proc.Status{Code: 1})
				}
				time.Sleep(time.Minute)
				if c.deny {
					r.wantWorkers("after the request", 2)
					r.Deliver(term)
				}
				err := <-done
				var got *prefork.WorkerError
				if errors.As(err, &got) != (c.want != nil) || got == nil && err != nil {
					t.Fatalf("Run: %v, want %v", err, c.want)
				}
				if c.want != nil {
					c.want.Generation, c.want.PID = 1, p.Pid()
					if *got != *c.want {
						t.Errorf("Run: %+v, want %+v", got, c.want)
					}
				}
				r.wantSignals(2, term)
				if n := len(r.fake.Started()); n != 2 {
					t.Errorf("%d workers were started", n)
				}
			})
			if n := strings.Count(log.String(), "shutdown requested by worker"); n != 1 {
				t.Errorf("the log has the request %d times", n)
			}
			if want := strings.Replace(c.log, "NAME", name, 1); !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, &log)
			}
		})
	}
}

func TestWorkerErrorText(t *testing.T) {
	for want, e := range map[string]prefork.WorkerError{
		"prefork: worker 7 (slot 1, generation 2) requested a shutdown with code 3: why": {Slot: 1, Generation: 2, PID: 7, Code: 3, Message: "why"},
		"prefork: worker 7 (standby, generation 2) requested a shutdown with code 1":     {Slot: -1, Generation: 2, PID: 7, Code: 1},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}

// A request of a worker while the pool stops sends no second stop signal, and
// still gives Run its error.
func TestWorkerShutsDownWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, WorkerShutdown: true}, nil, func(p *proctest.Process, sig syscall.Signal) {
			time.AfterFunc(time.Second, func() {
				send(p, wire.Shutdown{Code: 9, Message: "cannot write the rest"})
				time.AfterFunc(time.Second, func() { endOnTerm(p, sig) })
			})
		})
		done := r.startRun(context.Background())
		time.Sleep(time.Minute)
		r.Deliver(term)
		var got *prefork.WorkerError
		if err := <-done; !errors.As(err, &got) || got.Code != 9 {
			t.Errorf("Run: %v", err)
		}
		r.wantSignals(1, term)
		r.wantSignals(2, term)
	})
}

// The end of Run's context and the same TERM are one stop, also if a worker asks
// for it in between.
func TestWorkerShutsDownAfterContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, WorkerShutdown: true}, nil, func(p *proctest.Process, sig syscall.Signal) {
			time.AfterFunc(time.Minute/4, func() { endOnTerm(p, sig) })
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := r.startRun(ctx)
		time.Sleep(time.Second)
		cancel()
		time.Sleep(time.Second)
		send(r.process(1), wire.Shutdown{})
		time.Sleep(time.Second)
		r.Deliver(term)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.wantSignals(1, term)
	})
}

// A worker that asks for a shutdown during an upgrade ends the successor, too. A
// worker of a manager that has handed over ends nothing else.
func TestWorkerShutsDownInAnUpgrade(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprint("after the takeover ", after), func(t *testing.T) {
			alone(t, func(t *testing.T) {
				r := successorRigWith(t, prefork.Config{WorkerShutdown: true}, func(p *proctest.Process) {
					if after {
						send(p, wire.Ready{})
					}
				}, options{onSignal: func(p *proctest.Process, sig syscall.Signal) {
					time.AfterFunc(time.Minute/4, func() { endOnTerm(p, sig) })
				}})
				done := r.startRun(context.Background())
				time.Sleep(time.Second)
				r.Deliver(usr2)
				time.Sleep(time.Second)
				send(r.process(1), wire.Shutdown{Code: 3, Message: "why"})
				var got *prefork.WorkerError
				if err := <-done; !errors.As(err, &got) || got.Code != 3 {
					t.Errorf("Run: %v", err)
				}
				if stopped := len(signalsOf(r.successors()[0])) > 0; stopped == after {
					t.Errorf("the successor was stopped: %v", stopped)
				}
				r.wantSignals(1, term)
			})
		})
	}
}
