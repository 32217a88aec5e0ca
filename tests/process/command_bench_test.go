//go:build unix

package process_test

import (
	"context"
	"log"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.RegisterOptional("restarts", restarts) }

// restarts runs a Command that exits at once as often as its second argument says.
func restarts() {
	cfg := prefork.Config{MaxWorkers: 1, Backoff: []time.Duration{}, CrashLoop: prefork.CrashLoop{Failures: -1}, Command: []string{"/bin/true"}}
	switch os.Args[1] {
	case "step":
		cfg.ListenFDs = true
	case "sh":
		cfg.Command = []string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", "/bin/true"}
	}
	rounds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	var began time.Time
	var lives []time.Duration
	cfg.BeforeSpawn = func(*prefork.Manager, *prefork.Spawn) { began = time.Now() }
	cfg.OnChildReap = func(m *prefork.Manager, _ prefork.Exit) {
		if lives = append(lives, time.Since(began)); len(lives) == rounds {
			m.Shutdown()
		}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	pm := testprog.NewManager(cfg)
	if err := pm.Run(context.Background(), nil); err != nil {
		log.Fatal(err)
	}
	slices.Sort(lives)
	testprog.Print("least %d median %d", lives[0].Microseconds(), lives[len(lives)/2].Microseconds())
}

// BenchmarkCommand measures the life of a Command that exits at once, with its
// start: a direct one, one by the first step of ListenFDs, and one by the least
// shell script that sets LISTEN_PID. On a busy machine only the least one counts.
func BenchmarkCommand(b *testing.B) {
	for _, way := range []string{"direct", "step", "sh"} {
		b.Run(way, func(b *testing.B) {
			p := preforktest.Start(b, "restarts", way, strconv.Itoa(b.N))
			got := p.Expect(`^least (\d+) median (\d+)$`)
			for i, metric := range []string{"least-µs", "median-µs"} {
				us, err := strconv.ParseFloat(got[i+1], 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(us, metric)
			}
			testprog.ExpectSuccess(b, p)
		})
	}
}
