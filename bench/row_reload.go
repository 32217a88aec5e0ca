//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
)

// clients is the number of clients. Each opens a connection for each request
// and pauses after it. No contender is saturated, so the cost of a reload is
// visible.
const clients = 8

// think returns the pause of a client.
func think() time.Duration { return 2*time.Millisecond + rand.N(4*time.Millisecond) }

// reload reloads servers under load and measures failures and latencies.
func reload(r *run) error {
	rounds, reloads := r.rounds(10, 1), 2
	r.bounds("%d × %d reloads, one each second (start_server: 2.5 s), alternating with the same time without; %d clients, a new connection for each request, 2–6 ms between two; %d workers; %s",
		rounds, reloads, clients, serverWorkers, r.cpus)
	defer pin(r.cpus.load)()
	var all []*loaded
	defer func() {
		for _, l := range all {
			l.stop()
		}
	}()
	for _, c := range reloadables {
		l, err := c.start(r)
		if l != nil {
			all = append(all, l)
		}
		if err := r.skipMissing(c.name, err); err != nil {
			return err
		}
	}
	if err := alternate(rounds, all, func(l *loaded) error { return l.round(r, reloads) }); err != nil {
		return err
	}
	for _, l := range all {
		var none, late *goal
		if l.ours {
			none, late = atMost(0), atMost(1.5)
		}
		r.figure(fmt.Sprintf("%s: failed of %d", l.program.name, l.requests), float64(l.failed), count, none)
		r.ratio(l.reloading, l.quiet, late)
		if l.failed > 0 {
			r.note("First failure of %s: %v", l.program.name, l.first)
		}
	}
	return nil
}

// loaded is a server under load.
type loaded struct {
	*program
	reloadable
	port             int
	quiet, reloading *series // 99th percentiles
	requests, failed int
	first            error
}

func (c reloadable) start(r *run) (*loaded, error) {
	port := freePort()
	s, err := c.spec(r, port)
	if err != nil {
		return nil, err
	}
	s.name, s.cpus = c.name, r.cpus.serve
	p, err := r.start(s)
	if err != nil {
		return nil, err
	}
	l := &loaded{program: p, reloadable: c, port: port}
	if _, err := serving(r.ctx, p, port); err != nil {
		return l, err
	}
	l.reloading = r.series(c.name, "p99 through reloads", c.settings, inSeconds)
	l.quiet = r.series(c.name, "p99 without", c.settings, inSeconds)
	return l, sleep(r.ctx, settle)
}

// round loads the server without reloads, and again with them.
func (l *loaded) round(r *run, reloads int) error {
	every := max(time.Second, l.every)
	for _, reloading := range []bool{false, true} {
		var answered sync.Map // the pids
		clients := loadgen.Start(loadgen.Config{
			Network: "tcp", Address: address(l.port), Fresh: clients, Path: "/pid", Pause: think, MaxTime: limit,
			Check: func(status int, body []byte) error {
				if status != 200 {
					return fmt.Errorf("status %d", status)
				}
				answered.Store(string(body), true)
				return nil
			},
		})
		err := l.during(r, reloads, every, reloading)
		got := clients.Stop()
		if err != nil {
			return err
		}
		l.requests += got.OK + got.Failed
		l.failed += got.Failed
		if l.first == nil && got.Failed > 0 {
			l.first = got.Errors[0]
		}
		workers := 0
		answered.Range(func(_, _ any) bool { workers++; return true })
		if reloading && workers <= reloads {
			return l.program.errorf("%d processes have answered during %d reloads: some reloads had no effect", workers, reloads)
		}
		if reloading {
			l.reloading.addTime(got.Latency.Percentile(99))
		} else {
			l.quiet.addTime(got.Latency.Percentile(99))
		}
	}
	return nil
}

func (l *loaded) during(r *run, reloads int, every time.Duration, reloading bool) error {
	for range reloads {
		if reloading {
			if err := l.reload(r, l); err != nil {
				return err
			}
		}
		if err := sleep(r.ctx, every); err != nil {
			return err
		}
	}
	return nil
}

func hup(_ *run, l *loaded) error  { return l.signal(syscall.SIGHUP) }
func usr1(_ *run, l *loaded) error { return l.signal(syscall.SIGUSR1) }
