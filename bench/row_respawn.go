//go:build linux

package main

import (
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// respawn kills a worker and waits for the first line of its replacement's main, by turns of a Manager and of a loop of
// wait and start.
func respawn(r *run) error {
	rounds := r.rounds(300, 10)
	r.bounds("%d rounds", rounds)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	floor := &dying{series: r.series("", "by hand", "StartProcess and Wait in a loop", inSeconds)}
	pool := &dying{series: r.series("", "prefork", "MaxWorkers 1, ErrRespawnInterval -1", inSeconds)}
	for _, d := range []struct {
		*dying
		args []string
	}{{floor, []string{lean, "hand", "-again"}}, {pool, []string{lean, "pool", "-unpaced"}}} {
		p, err := r.start(spec{name: d.series.Name, args: d.args})
		if err != nil {
			return err
		}
		defer p.stop()
		d.program = p
		if err := d.next(r); err != nil {
			return err
		}
	}
	for range rounds {
		for _, d := range []*dying{floor, pool} {
			if err := d.kill(r); err != nil {
				return err
			}
		}
	}
	r.ratio(pool.series, floor.series, atMost(1.15))
	return nil
}

// dying is a contender whose one worker is killed again and again.
type dying struct {
	*program
	series *series
	worker int
}

// next waits for the next worker's main, and then for its being ready.
func (d *dying) next(r *run) error {
	fields, err := d.expect(r.ctx, "main")
	if err != nil {
		return err
	}
	if len(fields) != 1 {
		return fmt.Errorf("%s: main without a pid", d.name)
	}
	d.worker, err = strconv.Atoi(fields[0])
	return err
}

func (d *dying) kill(r *run) error {
	if _, err := d.expect(r.ctx, "ready"); err != nil {
		return err
	}
	time.Sleep(2 * time.Millisecond) // what the start has left to do is not the next one's
	began := time.Now()
	if err := syscall.Kill(d.worker, syscall.SIGKILL); err != nil {
		return err
	}
	if err := d.next(r); err != nil {
		return err
	}
	d.series.addTime(time.Since(began))
	return nil
}
