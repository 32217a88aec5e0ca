//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// minLife is the minimum lifetime of a worker before it is killed. The
// supervisors runit and s6 start nothing twice within a second, and this
// library counts a life of less than a second as young.
const minLife = 1200 * time.Millisecond

// standby kills the only worker of a server and sends requests until another
// worker answers.
func standby(r *run) error {
	rounds := r.rounds(60, 3)
	r.bounds("%d rounds, %v apart, all contenders running with one worker each", rounds, minLife)
	var all []*server
	defer func() {
		for _, s := range all {
			s.stop()
		}
	}()
	for _, c := range servers {
		s, err := c.start(r)
		if s != nil {
			all = append(all, s)
		}
		if err := r.skipMissing(c.name, err); err != nil {
			return err
		}
	}
	bare, err := withoutServers(r)
	for _, d := range bare {
		defer d.stop()
	}
	if err != nil {
		return err
	}
	for round := range rounds {
		if err := killAll(r, round, all, bare); err != nil {
			return err
		}
	}
	compareStandby(r, all)
	if len(bare) > 2 {
		r.ratio(bare[0].series, bare[2].series, atMost(0.5))
		r.ratio(bare[1].series, bare[2].series, nil)
	}
	return nil
}

// killAll is one round of standby.
func killAll(r *run, round int, all []*server, bare []*dying) error {
	if err := sleep(r.ctx, minLife); err != nil {
		return err
	}
	for _, s := range turns(round, all) {
		if err := s.kill(r); err != nil {
			return err
		}
	}
	for _, d := range turns(round, bare) {
		if err := d.kill(r); err != nil {
			return err
		}
	}
	return nil
}

// withoutServers returns contenders whose workers only print a line when they
// are ready, to measure without the cost of the servers.
func withoutServers(r *run) (all []*dying, err error) {
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return nil, err
	}
	const group = "without a server, at work"
	ours := &dying{word: "ready", args: []string{lean, "pool", "-standby", "1"}}
	ours.series = r.series(group, standbyName, "Standby 1", inSeconds)
	hand := &dying{word: "ready", args: []string{lean, "hand", "-parked"}}
	hand.series = r.series(group, "by hand, a parked process", "Wait, and a byte to a process in a blocking read", inSeconds)
	for _, d := range []*dying{ours, hand} {
		if err := d.start(r); err != nil {
			return all, err
		}
		all = append(all, d)
	}
	original := &dying{word: "ready"}
	if original.args, err = r.perlScript("prefork_worker.pl", "Parallel::Prefork"); err != nil {
		return all, r.skipMissing(join(group, "Parallel::Prefork"), err)
	}
	original.series = r.series(group, "Parallel::Prefork", "err_respawn_interval 0", inSeconds)
	if err := original.start(r); err != nil {
		return all, err
	}
	return append(all, original), nil
}

// compareStandby compares the standby with the best peer.
func compareStandby(r *run, all []*server) {
	var ours, best *series
	for _, s := range all {
		switch {
		case s.series.Name == standbyName:
			ours = s.series
		case s.series.Name == bareName:
		case best == nil || median(s.series.Samples) < median(best.Samples):
			best = s.series
		}
	}
	r.ratio(ours, best, atMost(0.5))
	for _, s := range all {
		if s.series != ours && s.series != best {
			r.ratio(ours, s.series, nil)
		}
	}
}

// server is a contender with one worker that serves HTTP.
type server struct {
	*program
	port   int
	series *series
	worker string // the worker's pid
}

// oneServer describes how to start a server with one worker.
type oneServer struct {
	name, settings string
	spec           func(r *run, port int) (spec, error)
}

var servers = []oneServer{
	{standbyName, "Standby 1; fasthttp's server", func(r *run, port int) (spec, error) { return ourServer(r, port, "-standby", "1") }},
	{bareName, "MaxWorkers 1; fasthttp's server", func(r *run, port int) (spec, error) { return ourServer(r, port) }},
	{"Parallel::Prefork", "err_respawn_interval 0", func(r *run, port int) (s spec, err error) {
		s.args, err = r.perlScript("prefork_server.pl", "Parallel::Prefork")
		s.args = append(s.args, strconv.Itoa(port), "1")
		return s, err
	}},
	{"Starlet", "--max-workers 1 --err-respawn-interval 0", func(r *run, port int) (spec, error) {
		return starlet(r, port, 1, "--err-respawn-interval", "0")
	}},
	{"fasthttp/prefork", "GOMAXPROCS 1, unlimited RecoverThreshold", func(r *run, port int) (spec, error) {
		web, err := r.builds.program("web", false)
		return fasthttpPrefork(web, port, 1, "-fast"), err
	}},
	{"runit", "runsv; ./run is a process with fasthttp's server", runit},
	{"s6", "s6-supervise, the same; it waits for a second", s6},
	{"gunicorn", "--workers 1, sync", func(r *run, port int) (spec, error) { return gunicorn(r, port, 1) }},
	{"unicorn", "worker_processes 1", func(r *run, port int) (spec, error) { return unicorn(r, port, 1) }},
}

func ourServer(r *run, port int, args ...string) (spec, error) {
	web, err := r.builds.program("web", false)
	return spec{args: append([]string{web, "prefork", "-fast", "-listen", address(port), "-workers", "1"}, args...)}, err
}

// runit and s6 restart a program that binds its socket itself.
func runit(r *run, port int) (spec, error) { return supervised(r, "runsv", "runit", port) }
func s6(r *run, port int) (spec, error)    { return supervised(r, "s6-supervise", "s6", port) }

func supervised(r *run, supervisor, service string, port int) (spec, error) {
	path, err := command(supervisor)
	if err != nil {
		return spec{}, err
	}
	web, err := r.builds.program("web", false)
	if err != nil {
		return spec{}, err
	}
	dir := filepath.Join(r.dir, service)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return spec{}, err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s single -fast -listen %s\n", web, address(port))
	return spec{args: []string{path, dir}}, os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o700)
}

func (c oneServer) start(r *run) (*server, error) {
	port := freePort()
	sp, err := c.spec(r, port)
	if err != nil {
		return nil, err
	}
	sp.name = c.name
	p, err := r.start(sp)
	if err != nil {
		return nil, err
	}
	s := &server{program: p, port: port}
	if s.worker, err = serving(r.ctx, p, port); err != nil {
		return s, err
	}
	s.series = r.series("", c.name, c.settings, inSeconds)
	return s, nil
}

// kill kills the worker and sends requests until another worker answers.
func (s *server) kill(r *run) error {
	pid, err := strconv.Atoi(strings.TrimSpace(s.worker))
	if err != nil {
		return s.errorf("malformed response to /pid: %q", s.worker)
	}
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return s.errorf("kill worker %d: %v", pid, err)
	}
	for {
		// If a manager holds the socket, the connection waits in its
		// accept queue. Otherwise it is refused. It is reset if the
		// killed worker has accepted it.
		answer, err := ask(address(s.port), "/pid")
		if err == nil && answer != s.worker {
			s.worker = answer
			s.series.addTime(time.Since(began))
			return nil
		}
		if time.Since(began) > limit {
			return s.errorf("no response within %v after its worker was killed: %v", limit, err)
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(50 * time.Microsecond)
		}
	}
}
