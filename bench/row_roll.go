//go:build linux

package main

import (
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// roll measures a reload of many workers: one at a time, several at a time, and
// all at once.
func roll(r *run) error {
	workers, rounds := 64, r.rounds(10, 2)
	if r.quick {
		workers = 8
	}
	r.bounds("%d workers, %d rounds", workers, rounds)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	once := &reloaded{signal: syscall.SIGHUP, took: r.series("", "all at once", "{Signal: SIGTERM}", inSeconds)}
	all := []*reloaded{once}
	for _, surge := range []int{1, 8, workers} {
		all = append(all, &reloaded{signal: syscall.SIGUSR2, surge: surge,
			took: r.series("", fmt.Sprintf("rolling, %d at a time", surge), fmt.Sprintf("{Rolling: true}, MaxSurge %d", surge), inSeconds)})
	}
	for _, c := range all {
		c.program, err = r.start(spec{name: c.took.Name, args: []string{lean, "pool", "-n", strconv.Itoa(workers), "-surge", strconv.Itoa(c.surge)}})
		if err != nil {
			return err
		}
		defer c.stop()
		if err := c.expectN(r.ctx, workers, "ready"); err != nil {
			return err
		}
	}
	if err := alternate(rounds, all, func(c *reloaded) error { return c.measure(r, workers) }); err != nil {
		return err
	}
	for _, c := range all[1:] {
		r.ratio(c.took, once.took, nil)
	}
	r.note("One at a time takes %s for each worker, nearly all of it between spawn and ready.",
		inSeconds.format(median(all[1].took.Samples)/float64(workers)))
	return nil
}

// measure reloads the pool once.
func (c *reloaded) measure(r *run, workers int) error {
	if err := sleep(r.ctx, settle); err != nil {
		return err
	}
	began := time.Now()
	c.program.signal(c.signal)
	if err := c.expectN(r.ctx, workers, "ready"); err != nil {
		return err
	}
	c.took.addTime(time.Since(began))
	return nil
}

// reloaded is a pool that is reloaded repeatedly.
type reloaded struct {
	*program
	signal syscall.Signal
	surge  int
	took   *series
}
