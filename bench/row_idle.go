//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// idle counts how often the processes of idle pools wake up.
func idle(r *run) error {
	window, settles := r.lasts(20*time.Second, 2*time.Second), r.lasts(5*time.Second, time.Second)
	peers := 10
	if err := checkTaskLimit(r.fleet); err != nil {
		return err
	}
	r.bounds("%d workers, %d of the peers; %v idle, after %v to settle", r.fleet, peers, window, settles)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	n := strconv.Itoa(r.fleet)
	ours := []spec{
		{name: "prefork", args: []string{lean, "pool", "-n", n}},
		{name: "prefork, sized by load", args: []string{lean, "pool", "-n", n, "-spare", n}},
	}
	for _, s := range ours {
		wakes, err := idleWakeups(r, s, r.fleet, settles, window, linesReady)
		if err != nil {
			return err
		}
		r.figure(fmt.Sprintf("%s, %d workers", s.name, r.fleet), wakes, perSecond, atMost(0))
	}
	for _, peer := range idlePeers {
		s, ready, err := peer.spec(r, peers)
		if err == nil {
			var wakes float64
			if wakes, err = idleWakeups(r, s, peers, settles, window, ready); err == nil {
				r.figure(fmt.Sprintf("%s, %d workers (%s)", peer.name, peers, peer.settings), wakes, perSecond, nil)
			}
		}
		if err := r.skipMissing(peer.name, err); err != nil {
			return err
		}
	}
	return nil
}

// idlePeers lists the peers that poll.
var idlePeers = []struct {
	name, settings string
	spec           func(r *run, workers int) (spec, readiness, error)
}{
	{"Parallel::Prefork::SpareWorkers", "heartbeat 0.25, its default", func(r *run, n int) (s spec, ready readiness, err error) {
		if s.args, err = r.perlScript("spareworkers.pl", "Parallel::Prefork::SpareWorkers"); err != nil {
			return s, nil, err
		}
		s.args = append(s.args, strconv.Itoa(n))
		return s, linesReady, nil
	}},
	{"gunicorn", "sync workers, timeout 30, its default", func(r *run, n int) (spec, readiness, error) {
		s, err := gunicorn(r, freePort(), n)
		return s, childrenReady, err
	}},
	{"fasthttp/prefork", "OnMasterDeath set", func(r *run, n int) (spec, readiness, error) {
		web, err := r.builds.program("web", false)
		s := fasthttpPrefork(web, freePort(), n, "-watch")
		return s, childrenReady, err
	}},
}

// A readiness waits until n workers of a contender are ready.
type readiness func(ctx context.Context, p *program, n int) error

func linesReady(ctx context.Context, p *program, n int) error { return p.expectN(ctx, n, "ready") }

// childrenReady is for contenders without output: it waits for the number of
// children, and a moment more.
func childrenReady(ctx context.Context, p *program, n int) error {
	for began := time.Now(); len(children(p.pid())) < n; time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > limit {
			return p.errorf("%d workers within %v, want %d", len(children(p.pid())), limit, n)
		}
	}
	time.Sleep(time.Second)
	return nil
}

// idleWakeups starts a contender and returns the number of wake-ups per second
// of all its processes together.
func idleWakeups(r *run, s spec, n int, settles, window time.Duration, ready readiness) (float64, error) {
	p, err := r.start(s)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	if err := ready(r.ctx, p, n); err != nil {
		return 0, err
	}
	all, _ := processesOf(p.id)
	if err := sleep(r.ctx, settles); err != nil {
		return 0, err
	}
	count := func() (sum int64) {
		for _, pid := range all {
			sum += wakeups(pid)
		}
		return sum
	}
	before, began := count(), time.Now()
	if err := sleep(r.ctx, window); err != nil {
		return 0, err
	}
	// Reading /proc takes long, but each thread is read at the same interval.
	took := time.Since(began)
	return float64(count()-before) / took.Seconds(), nil
}

// sleep waits for d unless the run is canceled.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
