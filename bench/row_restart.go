//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// restarted is a static program that prints its pid, and waits.
const restarted = `
#include <stdio.h>
#include <unistd.h>
int main(void) {
	printf("main %d\n", getpid());
	fflush(stdout);
	for (;;) pause();
}
`

// supervisor is a contender of restart.
type supervisor struct {
	healthy, young *dying // the same process
}

// restart kills a program below a supervisor, and waits for the first line of the
// next one: after a life of more than a second, and just after its start. The
// latter takes other supervisors a second.
func restart(r *run) error {
	rounds := r.rounds(60, 2)
	young := min(rounds, 10)
	r.bounds("%d rounds, %v apart, and in %d of them a second kill just after the start; all contenders run with one program each", rounds, minLife, young)
	program, err := buildRestarted(r)
	if err != nil {
		return r.skipMissing("everything", err)
	}
	self, err := r.builds.command("prefork")
	if err != nil {
		return err
	}
	lean, err := r.builds.program("lean", false)
	if err != nil {
		return err
	}
	var all []*supervisor
	for _, c := range []struct {
		name, settings, file string
		args                 []string
		service              bool
	}{
		{"prefork run", "--log none", "", []string{self, "run", "--control", "off", "--log", "none", "--", program}, false},
		{"by hand", "StartProcess and Wait in a loop", "", []string{lean, "hand", "-n", "1", "-again", "-program", program}, false},
		{"runsv", "the program is the file run", "runsv", nil, true},
		{"s6-supervise", "the program is the file run", "s6-supervise", nil, true},
		{"start_server", "", "start_server", []string{"--", program}, false},
	} {
		args := c.args
		if c.file != "" {
			path, err := command(c.file)
			if err := r.skipMissing(c.name, err); err != nil {
				return err
			}
			if err != nil {
				continue
			}
			args = append([]string{path}, c.args...)
		}
		if c.service {
			dir, err := r.service(c.name, program)
			if err != nil {
				return err
			}
			args = append(args, dir)
		}
		s := &supervisor{healthy: &dying{word: "main", args: args, series: r.series("healthy", c.name, c.settings, inSeconds)}}
		s.young = &dying{word: "main", series: r.series("just started", c.name, c.settings, inSeconds)}
		if err := s.healthy.start(r); err != nil {
			return err
		}
		defer s.healthy.stop()
		s.young.program = s.healthy.program
		all = append(all, s)
	}
	for round := range rounds {
		if err := sleep(r.ctx, minLife); err != nil {
			return err
		}
		for _, s := range turns(round, all) {
			if err := s.kill(r, round < young); err != nil {
				return err
			}
		}
	}
	for i, s := range all[1:] {
		var floor *goal
		if i == 0 { // by hand
			floor = atMost(1.15)
		}
		r.ratio(all[0].healthy.series, s.healthy.series, floor)
		r.ratio(all[0].young.series, s.young.series, floor)
	}
	r.figure("prefork run, healthy", median(all[0].healthy.series.Samples), inSeconds, atMost(0.002))
	r.figure("prefork run, just started", median(all[0].young.series.Samples), inSeconds, atMost(0.002))
	return nil
}

// kill kills the program, and the next one at once if again is true.
func (s *supervisor) kill(r *run, again bool) error {
	if err := s.healthy.killNow(r); err != nil || !again {
		return err
	}
	s.young.worker = s.healthy.worker
	if err := s.young.killNow(r); err != nil {
		return err
	}
	s.healthy.worker = s.young.worker
	return nil
}

// service makes a service directory in which the program is the file run.
func (r *run) service(name, program string) (dir string, err error) {
	dir = filepath.Join(r.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.Link(program, filepath.Join(dir, "run"))
}

func buildRestarted(r *run) (file string, err error) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", &notInstalled{"gcc", "run bench/setup.sh, or apt-get install gcc libc6-dev"}
	}
	source, err := r.write("restarted.c", restarted)
	if err != nil {
		return "", err
	}
	file = filepath.Join(r.dir, "restarted")
	if out, err := exec.Command(gcc, "-O1", "-static", "-o", file, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return file, nil
}
