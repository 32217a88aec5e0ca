//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// commandRow measures `prefork status` as a whole process, of a manager with 100
// workers.
func commandRow(r *run) error {
	rounds := r.rounds(300, 10)
	const workers = 100
	r.bounds("%d rounds in turns, %d workers", rounds, workers)
	server, err := r.builds.program("operate", false)
	if err != nil {
		return err
	}
	client, err := r.builds.command("prefork")
	if err != nil {
		return err
	}
	bare, err := r.builds.program("bare", false)
	if err != nil {
		return err
	}
	socket := filepath.Join(r.dir, "s")
	p, err := r.start(spec{name: "operate", args: []string{server, fmt.Sprint(workers)}, env: []string{"PREFORK_CONTROL=" + socket}})
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := p.expect(r.ctx, "ready"); err != nil {
		return err
	}
	empty := &whole{[]string{bare}, r.series("", "empty Go program", "from its start to its exit", inSeconds)}
	status := &whole{[]string{client, "-s", socket, "status"}, r.series("", "prefork status", "the same", inSeconds)}
	if err := alternate(rounds, []*whole{empty, status}, (*whole).measure); err != nil {
		return err
	}
	r.ratio(status.took, empty.took, atMost(4))
	return nil
}

// whole is a program of which the whole life is measured.
type whole struct {
	args []string
	took *series
}

func (w *whole) measure() error {
	cmd := exec.Command(w.args[0], w.args[1:]...)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", w.args, err, out)
	}
	w.took.addTime(time.Since(began))
	return nil
}
