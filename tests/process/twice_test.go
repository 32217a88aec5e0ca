//go:build unix

package process_test

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("twice", twice) }

// twice does everything before Run that docs/RECIPES.md warns of. Its argument is
// a directory with a directory data.
func twice() {
	role := "manager"
	if prefork.IsWorker() {
		role = "worker"
	}
	file, err := os.Create(filepath.Join(os.Args[1], "log"))
	if err != nil {
		log.Fatal(err)
	}
	file.WriteString(role + "\n")
	os.Setenv("TWICE", os.Getenv("TWICE")+"x")
	if err := os.Chdir(filepath.Join(os.Args[1], "data")); err != nil {
		log.Fatal(err)
	}
	if _, err := os.MkdirTemp(".", "temp"); err != nil {
		log.Fatal(err)
	}
	ticks := make(chan bool, 1)
	go func() { time.Sleep(time.Millisecond); ticks <- true }()
	defer func() { testprog.Print("deferred in %s", role) }()
	pm, err := prefork.New(prefork.Config{MaxWorkers: 2})
	if err != nil {
		log.Fatal(err)
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		dir, _ := os.Getwd()
		testprog.Print("worker in %s, env %s, goroutine %t", filepath.Base(dir), os.Getenv("TWICE"), <-ticks)
		<-w.Context().Done()
		return nil
	})
}

// TestRunsTwice tries the table "What runs twice" of docs/RECIPES.md.
func TestRunsTwice(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := preforktest.New(t, "twice", dir)
	p.Cmd.Env = append(os.Environ(), "TWICE=")
	p.Start()
	for range 2 {
		p.Expect(`^worker in data, env xx, goroutine true$`)
	}
	text, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || strings.Contains(string(text), "manager") {
		t.Errorf("log: %q, %v; want a worker to have emptied it", text, err)
	}
	temps, _ := filepath.Glob(filepath.Join(dir, "data", "temp*"))
	if len(temps) != 3 {
		t.Errorf("%d temporary directories, want 3", len(temps))
	}
	p.Signal(term)
	p.Expect(`^deferred in manager$`)
	p.Wait()
	if strings.Contains(strings.Join(p.Lines(), "\n"), "deferred in worker") {
		t.Error("a worker ran a deferred call of main")
	}
}
