//go:build linux

package main

import (
	"io"
	"strconv"
)

// setStatus measures the cost of SetStatus in a worker.
func setStatus(r *run) error {
	rounds, calls, perlCalls := r.rounds(30, 3), 1_000_000, 20_000
	r.bounds("%d rounds of %d calls, %d in Perl; processor time", rounds, calls, perlCalls)
	var all []*statusCaller
	defer func() {
		for _, c := range all {
			c.stop()
		}
	}()
	add := func(name, settings string, args ...string) error {
		c, err := startStatusCaller(r, name, settings, args...)
		if c != nil {
			all = append(all, c)
		}
		return err
	}
	if err := addStatusCallers(r, calls, perlCalls, add); err != nil {
		return err
	}
	if err := alternate(rounds, all, func(c *statusCaller) error { return c.measure(r) }); err != nil {
		return err
	}
	for _, c := range all[:2] {
		r.figure(c.took.Name, median(c.took.Samples), inNanos, atMost(15))
		// Rounding down removes the occasional allocations of the runtime.
		r.figure(c.took.Name+", allocations of a call", float64(int(c.allocs*1000))/1000, count, atMost(0))
	}
	if len(all) > 2 {
		r.ratio(all[0].took, all[2].took, nil)
	}
	return nil
}

// addStatusCallers calls add for each contender.
func addStatusCallers(r *run, calls, perlCalls int, add func(name, settings string, args ...string) error) error {
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	ours := []string{lean, "pool", "-status", strconv.Itoa(calls)}
	if err := add("prefork", "", ours...); err != nil {
		return err
	}
	if err := add("prefork, watched", "Stuck 1 h: the Manager reads the status", append(ours, "-stuck", "1h")...); err != nil {
		return err
	}
	args, err := r.perlScript("scoreboard.pl", "Parallel::Prefork::SpareWorkers")
	if err == nil {
		err = add("Parallel::Prefork::SpareWorkers", "its scoreboard, a file", append(args, strconv.Itoa(perlCalls))...)
	}
	return r.skipMissing("Parallel::Prefork::SpareWorkers", err)
}

// statusCaller is a contender that sets its status many times for each line
// that it reads.
type statusCaller struct {
	*program
	took   *series
	allocs float64
}

// startStatusCaller returns a contender that is not nil if it must be stopped.
func startStatusCaller(r *run, name, settings string, args ...string) (*statusCaller, error) {
	p, err := r.start(spec{name: name, args: args})
	if err != nil {
		return nil, err
	}
	_, err = p.expect(r.ctx, "ready")
	return &statusCaller{program: p, took: r.series("", name, settings, inNanos)}, err
}

func (c *statusCaller) measure(r *run) error {
	io.WriteString(c.stdin, "go\n")
	fields, err := c.expect(r.ctx, "status")
	if err != nil {
		return err
	}
	took, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return err
	}
	c.took.add(took)
	if len(fields) > 1 {
		allocs, _ := strconv.ParseFloat(fields[1], 64)
		c.allocs = max(c.allocs, allocs)
	}
	return nil
}
