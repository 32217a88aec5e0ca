//go:build linux

package main

import (
	"strconv"
	"syscall"
	"time"
)

// fleet measures many workers at once: start, signal and stop, of a Manager and
// of loops without it.
func fleet(r *run) error {
	rounds, signals := r.rounds(7, 2), 3
	if err := checkTaskLimit(r.fleet); err != nil {
		return err
	}
	r.bounds("%d rounds of %d workers, %d signals to each", rounds, r.fleet, signals)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	n := strconv.Itoa(r.fleet)
	hand := newCrowd(r, "by hand", "loops of StartProcess, Signal and Wait", lean, "hand", "-n", n)
	wired := newCrowd(r, "by hand, with a socket each", "the same, and each process watches its parent through a socket", lean, "hand", "-wired", "-n", n)
	pool := newCrowd(r, "prefork", "MaxWorkers "+n, lean, "pool", "-n", n)
	for round := range rounds {
		for _, c := range turns(round, []*crowd{hand, wired, pool}) {
			if err := c.measure(r, signals); err != nil {
				return err
			}
		}
	}
	r.ratio(pool.start, hand.start, atMost(1.1))
	r.ratio(pool.broadcast, hand.broadcast, atMost(1.2))
	r.ratio(pool.end, hand.end, atMost(1.2))
	for _, s := range [][2]*series{{pool.start, wired.start}, {pool.broadcast, wired.broadcast}, {pool.end, wired.end}} {
		r.ratio(s[0], s[1], nil)
	}
	return nil
}

// crowd is a contender with many processes.
type crowd struct {
	spec                  spec
	start, broadcast, end *series
}

func newCrowd(r *run, name, settings string, args ...string) *crowd {
	return &crowd{
		spec:      spec{name: name, args: args},
		start:     r.series("start until all are ready", name, settings, inSeconds),
		broadcast: r.series("signal until all have handled it", name, settings, inSeconds),
		end:       r.series("stop until all are reaped", name, settings, inSeconds),
	}
}

// measure starts the processes, sends signals and stops them.
func (c *crowd) measure(r *run, signals int) error {
	began := time.Now()
	p, err := c.startReady(r)
	if err != nil {
		return err
	}
	defer p.stop()
	c.start.addTime(time.Since(began))
	for range signals {
		time.Sleep(settle)
		began = time.Now()
		p.signal(syscall.SIGUSR1)
		if err := p.expectN(r.ctx, r.fleet, "handled"); err != nil {
			return err
		}
		c.broadcast.addTime(time.Since(began))
	}
	time.Sleep(settle)
	began = time.Now()
	p.signal(syscall.SIGTERM)
	if err := p.wait(r.ctx); err != nil {
		return err
	}
	c.end.addTime(time.Since(began))
	if !p.state.Success() {
		return p.errorf("exit: %v", p.state)
	}
	return nil
}

// settle is a pause after which the previous step has no more effect.
const settle = 200 * time.Millisecond

// startReady starts a contender and waits until all of its processes are ready.
func (c *crowd) startReady(r *run) (*program, error) {
	p, err := r.start(c.spec)
	if err != nil {
		return nil, err
	}
	if err := p.expectN(r.ctx, r.fleet, "ready"); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// memoryRow measures the memory of idle workers and of their manager.
func memoryRow(r *run) error {
	if err := checkTaskLimit(r.fleet); err != nil {
		return err
	}
	r.bounds("%d workers", r.fleet)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	n := strconv.Itoa(r.fleet)
	hand := r.series("an idle worker (PSS)", "bare", "the same program without calls of the library", inBytes)
	wired := r.series("an idle worker (PSS)", "bare, with a socket each", "the same, each watching its parent through a socket", inBytes)
	pool := r.series("an idle worker (PSS)", "prefork", "MaxWorkers "+n, inBytes)
	if _, err := measureMemory(r, hand, spec{name: "bare", args: []string{lean, "hand", "-n", n}}, r.fleet); err != nil {
		return err
	}
	if _, err := measureMemory(r, wired, spec{name: "bare, with a socket each", args: []string{lean, "hand", "-wired", "-n", n}}, r.fleet); err != nil {
		return err
	}
	many, err := measureMemory(r, pool, spec{name: "prefork", args: []string{lean, "pool", "-n", n}}, r.fleet)
	if err != nil {
		return err
	}
	one, err := measureMemory(r, nil, spec{name: "prefork", args: []string{lean, "pool", "-n", "1"}}, 1)
	if err != nil {
		return err
	}
	r.ratio(pool, hand, atMost(1.1))
	r.ratio(pool, wired, nil)
	r.figure("private memory of the manager per worker", float64(many.private-one.private)/float64(r.fleet-1), inBytes, atMost(8<<10))
	r.note("Private memory of the manager: %s with 1 worker, %s with %s.", inBytes.format(float64(one.private)), inBytes.format(float64(many.private)), n)
	return nil
}

// measureMemory starts n workers and adds the memory of each to the series. It
// returns the memory of their parent.
func measureMemory(r *run, perWorker *series, s spec, n int) (memory, error) {
	c := crowd{spec: s}
	p, err := r.start(c.spec)
	if err != nil {
		return memory{}, err
	}
	defer p.stop()
	if err := p.expectN(r.ctx, n, "ready"); err != nil {
		return memory{}, err
	}
	time.Sleep(r.lasts(2*time.Second, settle))
	workers := children(p.pid())
	if len(workers) != n {
		return memory{}, p.errorf("%d workers, want %d", len(workers), n)
	}
	if perWorker != nil {
		for _, pid := range workers {
			m, err := memoryOf(pid)
			if err != nil {
				return memory{}, err
			}
			perWorker.add(float64(m.proportional))
		}
	}
	return memoryOf(p.pid())
}
