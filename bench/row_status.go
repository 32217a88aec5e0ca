//go:build linux

package main

import (
	"fmt"
	"io"
	"strconv"
)

// setStatus measures what a worker pays for saying what it does.
func setStatus(r *run) error {
	rounds, calls, perlCalls := r.rounds(30, 3), 1_000_000, 20_000
	r.bounds("%d rounds of %d calls, in Perl of %d; processor time", rounds, calls, perlCalls)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	type contender struct {
		*program
		took   *series
		allocs float64
	}
	var all []*contender
	add := func(name, settings string, args ...string) error {
		p, err := r.start(spec{name: name, args: args})
		if err != nil {
			return err
		}
		all = append(all, &contender{program: p, took: r.series("", name, settings, inNanos)})
		_, err = p.expect(r.ctx, "ready")
		return err
	}
	defer func() {
		for _, c := range all {
			c.stop()
		}
	}()
	ours := []string{lean, "pool", "-status", strconv.Itoa(calls)}
	if err := add("prefork", "", ours...); err != nil {
		return err
	}
	if err := add("prefork, watched", "Stuck 1 h: the Manager looks at who is busy", append(ours, "-stuck", "1h")...); err != nil {
		return err
	}
	args, err := r.perlScript("scoreboard.pl", "Parallel::Prefork::SpareWorkers")
	if err == nil {
		err = add("Parallel::Prefork::SpareWorkers", "its scoreboard, a file", append(args, strconv.Itoa(perlCalls))...)
	}
	if err := r.without("Parallel::Prefork::SpareWorkers", err); err != nil {
		return err
	}
	for round := range rounds {
		for _, c := range turns(round, all) {
			io.WriteString(c.stdin, fmt.Sprintln(round))
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
		}
	}
	for _, c := range all[:2] {
		r.figure(c.took.Name, median(c.took.Samples), inNanos, atMost(15))
		// What the runtime itself allocates now and then is not the call's.
		r.figure(c.took.Name+", allocations of a call", float64(int(c.allocs*1000))/1000, count, atMost(0))
	}
	if len(all) > 2 {
		r.ratio(all[0].took, all[2].took, nil)
	}
	return nil
}
