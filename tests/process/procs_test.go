//go:build unix

package process_test

import (
	"context"
	"log"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("procs", procs) }

// procs runs one worker, then a second one. Each prints its GOMAXPROCS.
func procs() {
	given, _ := strconv.Atoi(os.Args[1])
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: 1, Resources: prefork.Resources{GOMAXPROCS: given},
		TrapSignals: prefork.Signals{term: {Signal: term}},
		AfterSpawn:  func(pm *prefork.Manager, _ int) { pm.SetMaxWorkers(2) },
	})
	if err != nil {
		log.Fatal(err)
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("slot %d: GOMAXPROCS %d", w.Slot(), runtime.GOMAXPROCS(0))
		<-w.Context().Done()
		return nil
	})
}

// TestGOMAXPROCS checks that workers share the CPUs of the machine by default,
// in the manager's environment and in Resources as given.
func TestGOMAXPROCS(t *testing.T) {
	cpus := runtime.NumCPU()
	for name, tt := range map[string]struct {
		given, env    string
		first, second int
	}{
		"default":     {"0", "", cpus, (cpus + 1) / 2},
		"environment": {"0", "3", 3, 3},
		"given":       {"5", "3", 5, 5},
		"left alone":  {"-1", "", cpus, cpus},
	} {
		t.Run(name, func(t *testing.T) {
			p := preforktest.New(t, "procs", tt.given)
			p.Cmd.Env = append(os.Environ(), "GOMAXPROCS="+tt.env)
			p.Start()
			got := make(map[string]string)
			for range 2 { // in any order
				line := p.Expect(`slot (\d): GOMAXPROCS (\d+)$`)
				got[line[1]] = line[2]
			}
			if got["0"] != strconv.Itoa(tt.first) || got["1"] != strconv.Itoa(tt.second) {
				t.Errorf("GOMAXPROCS by slot: %v, want %d and %d", got, tt.first, tt.second)
			}
			p.Signal(term)
			p.Wait()
		})
	}
}
