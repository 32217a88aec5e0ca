//go:build unix

package manager_test

import (
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
	"github.com/prefork-go/prefork/internal/wire"
)

// unreadProcess is a process whose socket has no room while full.
type unreadProcess struct {
	*proctest.Process
	full *atomic.Bool
}

func (p *unreadProcess) Write(b []byte) (int, error) {
	if p.full.Load() {
		return 0, proc.ErrWouldBlock
	}
	return p.Process.Write(b)
}

// The level goes to each worker once, also to a standby, and by the marker to those
// that are spawned later. A worker that reads nothing gets the last one later.
func TestSetLogLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		r := newRigWith(t, prefork.Config{MaxWorkers: 2, Standby: 1}, options{
			wrap: func(p *proctest.Process) proc.Process {
				if p.ID == 2 {
					return &unreadProcess{p, &full}
				}
				return nil
			},
		})
		if got := r.LogLevel().Level(); got != slog.LevelInfo {
			t.Errorf("at first: %v", got)
		}
		r.SetLogLevel(slog.LevelWarn)
		done := r.startLoop()
		time.Sleep(2 * boot)
		r.SetLogLevel(slog.LevelWarn)
		synctest.Wait()
		full.Store(true)
		r.SetLogLevel(slog.LevelDebug)
		synctest.Wait()
		r.SetLogLevel(math.MaxInt)
		if got := r.LogLevel().Level(); got != math.MaxInt32 {
			t.Errorf("a level that no message has: %v", got)
		}
		time.Sleep(time.Minute)
		full.Store(false)
		time.Sleep(time.Second)
		debug, most := wire.LogLevel{Level: -4}, wire.LogLevel{Level: math.MaxInt32}
		for i, want := range [][]wire.Message{{debug, most}, {most}, {debug, most}} {
			if got := slices.DeleteFunc(r.messages(i+1), isPromote); !slices.Equal(got, want) {
				t.Errorf("worker %d received %v, want %v", i+1, got, want)
			}
		}
		r.process(1).Exit(proc.Status{})
		time.Sleep(time.Second)
		for i, want := range map[int]string{1: ";level=4;", 4: ";level=2147483647;"} {
			if env := strings.Join(r.process(i).Spec.Env, " "); !strings.Contains(env, want) {
				t.Errorf("worker %d has no %s: %s", i, want, env)
			}
		}
		r.Deliver(term)
		<-done
	})
}

func isPromote(msg wire.Message) bool {
	_, ok := msg.(wire.Promote)
	return ok
}

// A level is no reason to wake up again and again, and a Command gets none.
func TestLogLevelOfACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, Command: []string{"true"}}, func(*proctest.Process) {}, func(p *proctest.Process, _ syscall.Signal) { p.Exit(proc.Status{}) })
		done := r.startLoop()
		time.Sleep(boot)
		r.SetLogLevel(slog.LevelDebug)
		if got := r.messages(1); got != nil {
			t.Errorf("it received %v", got)
		}
		r.Deliver(term)
		<-done
	})
}

func TestQueueInfoString(t *testing.T) {
	tcp := prefork.SocketInfo{Network: "tcp", Address: ":80"}
	for want, q := range map[string]prefork.QueueInfo{
		"tcp :80, one socket: 3 of 9 waiting": {SocketInfo: tcp, Slot: -1, Waiting: 3, Backlog: 9},
		"tcp :80, one socket: queue unknown":  {SocketInfo: tcp, Slot: -1, Waiting: -1, Backlog: -1},
		"tcp :80, slot 2: 0 of 9 waiting":     {SocketInfo: tcp, Slot: 2, Backlog: 9},
	} {
		if got := q.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Queues lists the sockets in the order of Snapshot, without a loop.
func TestQueuesOfTheManager(t *testing.T) {
	r := newRig(t, prefork.Config{MaxWorkers: 2}, nil, nil)
	for _, network := range []string{"tcp", "udp"} {
		var err error
		if network == "tcp" {
			_, err = r.ListenPerWorker(network, "127.0.0.1:0")
		} else {
			_, err = r.ListenPacket(network, "127.0.0.1:0")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sockets := r.Snapshot().Sockets
	var want []prefork.SocketInfo
	for _, s := range sockets {
		want = append(want, s)
		if s.PerWorker {
			want = append(want, s)
		}
	}
	var got []prefork.SocketInfo
	for i, q := range r.Queues() {
		got = append(got, q.SocketInfo)
		if slot := map[bool]int{true: i, false: -1}[q.PerWorker]; q.Slot != slot {
			t.Errorf("queue %d is of slot %d, want %d", i, q.Slot, slot)
		}
		if udp := q.Network == "udp"; udp && (q.Waiting != -1 || q.Backlog != -1) {
			t.Errorf("datagrams: %d of %d", q.Waiting, q.Backlog)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
