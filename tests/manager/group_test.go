//go:build unix

package manager_test

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// forked is an onStart whose workers have other processes in their groups.
func forked(p *proctest.Process) {
	p.Fork()
	reachStart(p)
}

// wantGroup compares the signals that the group of the i-th worker received.
func (r *rig) wantGroup(i int, want ...syscall.Signal) {
	r.t.Helper()
	synctest.Wait()
	if got := r.process(i).GroupSignals(); !slices.Equal(got, want) {
		r.t.Errorf("the group of worker %d received %v, want %v", i, got, want)
	}
}

// A worker is killed and leaves other processes in its group. Its slot is
// spawned again; the leftover processes get the stop signal, and SIGKILL after
// StopTimeout.
func TestLeftoversOfDeadWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, StopGroup: true, StopTimeout: 10 * time.Second}, forked, nil)
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.SignalAllChildren(hup)
		r.wantSignals(1, hup)
		r.wantGroup(1)
		r.process(1).Exit(proc.Status{Signal: kill})
		r.wantWorkers("when one has died", 1)
		r.wantGroup(1, term, syscall.SIGCONT)
		time.Sleep(10*time.Second - 1)
		r.wantGroup(1, term, syscall.SIGCONT)
		time.Sleep(time.Nanosecond)
		r.wantGroup(1, term, syscall.SIGCONT, kill)
		if n, stopping, killed := len(r.exits), r.count("): stopping"), r.count("): killed"); n != 1 || stopping != 1 || killed != 1 {
			t.Errorf("%d exits, events: %q", n, r.eventLog())
		}
		checks := r.process(1).LeftoverReaps()
		time.Sleep(time.Hour)
		if n := r.process(1).LeftoverReaps(); n != checks || n > 30 {
			t.Errorf("%d checks, then %d", checks, n)
		}
		r.process(2).ExitForked()
		r.Deliver(term)
		<-done
	})
}

// WaitAllChildren and Run wait for leftover processes, up to StopTimeout.
func TestWaitForLeftovers(t *testing.T) {
	for _, takes := range []time.Duration{0, 100 * time.Millisecond, 29 * time.Second, time.Hour} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, prefork.Config{MaxWorkers: 3, StopGroup: true}, forked, nil)
				r.fake.OnGroupSignal = func(p *proctest.Process, sig syscall.Signal) {
					if sig == term {
						time.AfterFunc(takes, p.ExitForked)
					}
				}
				done := r.startRun(context.Background())
				time.Sleep(time.Minute)
				began := time.Now()
				r.Deliver(term)
				r.wantWorkers("when all are reaped", 0)
				<-done
				took := time.Since(began)
				late := min(takes/2+10*time.Millisecond, 500*time.Millisecond)
				if want := min(takes, 30*time.Second); took < want || took > want+late {
					t.Errorf("Run took %v to end, want %v", took, want)
				}
				want := []syscall.Signal{term, syscall.SIGCONT}
				if takes == time.Hour {
					want = append(want, kill)
				}
				for i := range 3 {
					r.wantGroup(i+1, want...)
				}
			})
		})
	}
}

func TestWaitForLeftoversLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, StopGroup: true}, forked, nil)
		go func() {
			time.Sleep(time.Second)
			r.Deliver(term)
		}()
		r.Start()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if left, err := r.WaitAllChildren(ctx); left != 0 || err != context.DeadlineExceeded {
			t.Errorf("WaitAllChildren = %d, %v", left, err)
		}
		time.AfterFunc(time.Second, func() { r.SignalAllChildren(kill) })
		began := time.Now()
		if left, err := r.WaitAllChildren(context.Background()); left != 0 || err != nil || time.Since(began) != time.Second {
			t.Errorf("WaitAllChildren = %d, %v after %v", left, err, time.Since(began))
		}
	})
}

// The second interrupt kills the leftover processes, too.
func TestInterruptKillsLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 2, StopGroup: true}, forked, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(syscall.SIGINT)
		time.Sleep(time.Second)
		r.wantWorkers("when all are reaped", 0)
		r.Deliver(syscall.SIGINT)
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Error("Run has not ended")
		}
		r.wantGroup(1, term, syscall.SIGCONT, kill)
	})
}

// A worker that exceeds StopTimeout is killed with its group. Run does not wait
// for killed processes.
func TestStopTimeoutWithGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, StopGroup: true}, forked, func(*proctest.Process, syscall.Signal) {})
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(term)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		<-done
		r.wantGroup(1, term, syscall.SIGCONT, kill)
		if len(r.exits) != 1 || r.exits[0].Reason != prefork.ReasonStopTimeout || r.count("): stopping") > 0 {
			t.Errorf("exits %v, events %q", r.exits, r.eventLog())
		}
	})
}

// Without StopGroup the manager never checks a group.
func TestNoStopGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1}, forked, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		r.Deliver(term)
		<-done
		r.wantSignals(1, term)
		r.wantGroup(1)
		if p := r.process(1); p.Spec.Group || p.LeftoverReaps() > 0 {
			t.Errorf("Group %v, %d checks", p.Spec.Group, p.LeftoverReaps())
		}
	})
}
