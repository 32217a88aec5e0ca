//go:build linux

package main

import (
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// respawn kills a worker and waits for the first line of its replacement's
// main. It compares a Manager with a loop of wait and start.
func respawn(r *run) error {
	rounds := r.rounds(300, 10)
	r.bounds("%d rounds, each worker killed %v after it is ready", rounds, pause)
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	floor := &dying{word: "main", series: r.series("", "by hand", "StartProcess and Wait in a loop", inSeconds)}
	wired := &dying{word: "main", series: r.series("", "by hand, with a socket each", "the same, and each process watches its parent through a socket", inSeconds)}
	pool := &dying{word: "main", series: r.series("", "prefork", "MaxWorkers 1, ErrRespawnInterval -1", inSeconds)}
	floor.args = []string{lean, "hand", "-again"}
	wired.args = []string{lean, "hand", "-again", "-wired"}
	pool.args = []string{lean, "pool", "-unpaced"}
	all := []*dying{floor, wired, pool}
	for _, d := range all {
		if err := d.start(r); err != nil {
			return err
		}
		defer d.stop()
	}
	if err := alternate(rounds, all, func(d *dying) error { return d.kill(r) }); err != nil {
		return err
	}
	r.ratio(pool.series, floor.series, atMost(1.15))
	r.ratio(pool.series, wired.series, nil)
	return nil
}

// pause is the time between the readiness of a worker and its end, in which it
// completes its startup.
const pause = 10 * time.Millisecond

// dying is a contender whose only worker is killed repeatedly.
type dying struct {
	*program
	args   []string
	word   string // first word of the line that a replacement prints
	series *series
	worker int
}

func (d *dying) start(r *run) (err error) {
	if d.program, err = r.start(spec{name: d.series.Name, args: d.args}); err != nil {
		return err
	}
	return d.next(r)
}

// next reads the pid of the next worker.
func (d *dying) next(r *run) error {
	fields, err := d.expect(r.ctx, d.word)
	if err != nil {
		return err
	}
	if len(fields) != 1 {
		return fmt.Errorf("%s: line %q has no pid", d.name, d.word)
	}
	d.worker, err = strconv.Atoi(fields[0])
	return err
}

func (d *dying) kill(r *run) error {
	if d.word == "main" {
		if _, err := d.expect(r.ctx, "ready"); err != nil {
			return err
		}
		if err := sleep(r.ctx, pause); err != nil {
			return err
		}
	}
	return d.killNow(r)
}

// killNow kills the worker and waits for the first line of the next one.
func (d *dying) killNow(r *run) error {
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
