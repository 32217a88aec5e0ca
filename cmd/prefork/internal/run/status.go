package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A statusFile lists the workers that are ready, as start_server's does: a line
// "generation:pid" for each.
type statusFile struct {
	path    string
	workers map[int]int // generation by pid
}

// set adds or changes a worker.
func (s *statusFile) set(pid, generation int) error {
	if s.path == "" || s.workers[pid] == generation {
		return nil
	}
	s.workers[pid] = generation
	return s.write()
}

// remove removes a worker.
func (s *statusFile) remove(pid int) error {
	if _, ok := s.workers[pid]; !ok {
		return nil
	}
	delete(s.workers, pid)
	return s.write()
}

// write replaces the file, so that no reader sees a part of it.
func (s *statusFile) write() error {
	var lines []string
	for pid, generation := range s.workers {
		lines = append(lines, fmt.Sprintf("%d:%d\n", generation, pid))
	}
	slices.SortFunc(lines, func(a, b string) int {
		ga, pa := parseStatusLine(a)
		gb, pb := parseStatusLine(b)
		if ga != gb {
			return ga - gb
		}
		return pa - pb
	})
	next := s.path + "." + strconv.Itoa(os.Getpid())
	err := os.WriteFile(next, []byte(strings.Join(lines, "")), 0o644)
	if err == nil {
		err = os.Rename(next, s.path)
	}
	if err != nil {
		os.Remove(next)
	}
	return err
}

// close removes the file.
func (s *statusFile) close() error {
	if s.path == "" {
		return nil
	}
	if err := os.Remove(s.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func parseStatusLine(line string) (generation, pid int) {
	g, p, _ := strings.Cut(strings.TrimSpace(line), ":")
	generation, _ = strconv.Atoi(g)
	pid, _ = strconv.Atoi(p)
	return generation, pid
}

// readStatus returns the lowest and the highest generation in a status file; 0 if
// it has none.
func readStatus(path string) (lowest, highest int, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		generation, pid := parseStatusLine(line)
		if generation == 0 || pid == 0 {
			return 0, 0, fmt.Errorf("%s: the line %q is not a generation and a pid", path, strings.TrimSpace(line))
		}
		if lowest == 0 {
			lowest = generation
		}
		lowest, highest = min(lowest, generation), max(highest, generation)
	}
	return lowest, highest, nil
}
