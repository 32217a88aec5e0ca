//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// spawnToMain measures the startup cost of the packages that a program links:
// the time from its start by hand to the first line of its main.
func spawnToMain(r *run) error {
	rounds := r.rounds(100, 5)
	r.bounds("%d rounds", rounds)
	var all []*linked
	for _, p := range linkedPrograms {
		for _, cgo := range []bool{false, true} {
			c, err := p.build(r, cgo)
			if err != nil {
				return err
			}
			if c != nil {
				all = append(all, c)
			}
		}
	}
	if err := alternate(rounds, all, (*linked).measure); err != nil {
		return err
	}
	compareLinked(r, all)
	return nil
}

// linkedProgram is a program that links some packages.
type linkedProgram struct {
	name, links string
	args        []string
}

var linkedPrograms = []linkedProgram{
	{"bare", "os only", nil},
	{"lean", "this library, and with it net", []string{"child"}},
	{"web", "net/http, fasthttp, tableflip and this library", []string{"main"}},
}

// linked is a contender: a linkedProgram with or without cgo.
type linked struct {
	file string
	args []string
	took *series
}

// build returns nil if cgo is not available.
func (p linkedProgram) build(r *run, cgo bool) (*linked, error) {
	settings := "CGO_ENABLED=0"
	if cgo {
		settings = "CGO_ENABLED=1"
	}
	file, err := r.builds.program(p.name, cgo)
	if err != nil {
		return nil, r.skipMissing(p.links+", "+settings, err)
	}
	return &linked{file, p.args, r.series(p.links, settings, "", inSeconds)}, nil
}

func (c *linked) measure() error {
	took, err := firstOutput(c.file, c.args)
	if err == nil {
		c.took.addTime(took)
	}
	return err
}

// compareLinked compares each program with cgo with the same without.
func compareLinked(r *run, all []*linked) {
	for i, without := range all {
		for _, with := range all[i+1:] {
			if with.took.Group == without.took.Group {
				r.ratio(with.took, without.took, nil)
			}
		}
	}
}

// firstOutput returns the time that a program takes to its first line of
// output. It then kills the program.
func firstOutput(file string, args []string) (time.Duration, error) {
	out, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(file, args...)
	cmd.Stdout = w
	began := time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return 0, fmt.Errorf("%s %v printed %q: %w", file, args, line, err)
	}
	return time.Since(began), nil
}
