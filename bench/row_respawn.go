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
	r.bounds("%d rounds, each worker at work for %v before", rounds, pause)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	floor := &dying{word: "main", series: r.series("", "by hand", "StartProcess and Wait in a loop", inSeconds)}
	wired := &dying{word: "main", series: r.series("", "by hand, with a socket each", "the same, and each process reads a socket whose end tells of its parent's", inSeconds)}
	pool := &dying{word: "main", series: r.series("", "prefork", "MaxWorkers 1, ErrRespawnInterval -1", inSeconds)}
	floor.args = []string{lean, "hand", "-again"}
	wired.args = []string{lean, "hand", "-again", "-wired"}
	pool.args = []string{lean, "pool", "-unpaced"}
	all := []*dying{floor, wired, pool}
	for _, d := range all {
		if err := d.up(r); err != nil {
			return err
		}
		defer d.stop()
	}
	for round := range rounds {
		for _, d := range turns(round, all) {
			if err := d.kill(r); err != nil {
				return err
			}
		}
	}
	r.ratio(pool.series, floor.series, atMost(1.15))
	r.ratio(pool.series, wired.series, nil)
	return nil
}

// pause is how long a worker is left at work: what its start has left to do is over then.
const pause = 10 * time.Millisecond

// dying is a contender whose one worker is killed again and again.
type dying struct {
	*program
	args   []string
	word   string // begins the line by which a replacement tells of itself
	series *series
	worker int
}

func (d *dying) up(r *run) (err error) {
	if d.program, err = r.start(spec{name: d.series.Name, args: d.args}); err != nil {
		return err
	}
	return d.next(r)
}

// next waits for the next worker.
func (d *dying) next(r *run) error {
	fields, err := d.expect(r.ctx, d.word)
	if err != nil {
		return err
	}
	if len(fields) != 1 {
		return fmt.Errorf("%s: %s without a pid", d.name, d.word)
	}
	d.worker, err = strconv.Atoi(fields[0])
	return err
}

func (d *dying) kill(r *run) error {
	if d.word == "main" {
		if _, err := d.expect(r.ctx, "ready"); err != nil {
			return err
		}
	}
	if d.word == "main" {
		if err := rest(r.ctx, pause); err != nil {
			return err
		}
	}
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
