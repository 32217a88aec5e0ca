//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// spawnToMain measures what a program pays for what it links: from its start by hand to the first line of its main.
func spawnToMain(r *run) error {
	rounds := r.rounds(100, 5)
	r.bounds("%d rounds", rounds)
	type contender struct {
		file string
		args []string
		took *series
	}
	var all []*contender
	for _, p := range []struct {
		name, links string
		args        []string
	}{
		{"bare", "os alone", nil},
		{"lean", "this library, and with it net", []string{"child"}},
		{"web", "net/http, fasthttp, tableflip and this library", []string{"main"}},
	} {
		for _, cgo := range []bool{false, true} {
			settings := "CGO_ENABLED=0"
			if cgo {
				settings = "CGO_ENABLED=1"
			}
			file, err := r.builds.program(p.name, cgo)
			if err := r.without(p.links+", "+settings, err); err != nil {
				return err
			}
			if err == nil {
				all = append(all, &contender{file, p.args, r.series(p.links, settings, "", inSeconds)})
			}
		}
	}
	for round := range rounds {
		for _, c := range turns(round, all) {
			took, err := firstOutput(c.file, c.args)
			if err != nil {
				return err
			}
			c.took.addTime(took)
		}
	}
	for i := 1; i < len(all); i++ {
		if all[i].took.Group == all[i-1].took.Group {
			r.ratio(all[i].took, all[i-1].took, nil)
		}
	}
	return nil
}

// firstOutput is how long a program takes to its first line of output. Then it is killed.
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
		return 0, fmt.Errorf("%s %v said %q: %w", file, args, line, err)
	}
	return time.Since(began), nil
}
